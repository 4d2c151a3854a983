"""Secrets reach no log, argument list, environment, event or status."""

from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.cluster import Cluster
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]


def _process_texts() -> str:
    """Arguments of all processes of the machine, and the environments of those in pods (the store has its own keys)."""
    texts = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts.append((process / "cmdline").read_bytes().decode("utf-8", "replace"))
            if "kubepods" in (process / "cgroup").read_text():
                texts.append((process / "environ").read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue
    return "\n".join(texts)


def test_secrets_stay_secret(workspace: Workspace, cluster: Cluster, seed: Seed) -> None:
    """Also while the credentials are wrong, which is when programs like to quote them."""
    seeded = seed(big_objects(count=1, size=1 << 20))
    workspace.reader_files(seeded.rows)
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1))
    workspace.wait("dataset", "data")
    wrong = "Wrong0Secret1Value2For3The4Log5"
    workspace.apply(workspace.secret(secretAccessKey=wrong))
    eventually(
        lambda: workspace.condition("dataset", "data", "Ready"), timeout=30, what="the refusal shows",
        until=lambda ready: ready["status"] == "False",
    )  # fmt: skip
    pod = workspace.holder("reader", "node-1")
    keys = cluster.kubectl(
        "get",
        "secret",
        "data-forebay-access",
        "-n",
        workspace.namespace,
        "-o",
        "go-template={{.data.keys | base64decode}}",
    ).stdout.split()
    assert keys
    secrets = [wrong, workspace.bucket.secret_key, *keys]

    texts = {
        "processes": _process_texts(),
        "events": cluster.kubectl("get", "events", "-A", "-o", "json").stdout,
        "objects": cluster.kubectl(
            "get", "datasets,runtimes,dataloads,pods,statefulsets,services,configmaps,pv,pvc", "-A", "-o", "json"
        ).stdout,
    }
    for where, selector in ((workspace.namespace, ""), ("forebay-system", ""), ("forebay-node", "")):
        for name in cluster.kubectl("get", "pods", "-n", where, "-l", selector, "-o", "name").stdout.split():
            texts[name] = cluster.kubectl("logs", "-n", where, "--all-containers", name, check=False).stdout

    leaks = [
        (place, f"secret {number}")
        for place, text in texts.items()
        for number, one in enumerate(secrets)
        if one in text
    ]
    assert leaks == []
    pod.delete(cluster)
