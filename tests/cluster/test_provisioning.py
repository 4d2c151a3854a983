"""Claims of StorageClasses: bound by the operator, mended by themselves, read by pods, and gone without a trace."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import yaml

from testkit.cluster import Cluster
from testkit.install import ROOT
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually
from testkit.workspace import SECRET, Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]
EXAMPLE = ROOT / "examples/05-storage-class"


def _example(name: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in yaml.safe_load_all((EXAMPLE / name).read_text())}


@pytest.fixture
def classes(cluster: Cluster, workspace: Workspace, seed: Seed) -> Iterator[Seeded]:
    """The example's classes, for the test's own bucket and namespace; and what is in the bucket."""
    seeded = seed(big_objects(count=2, size=3 << 20))
    made = _example("classes.yaml")
    made["demo-bucket"]["parameters"] |= {
        "source": f"s3://{workspace.bucket.name}/{seeded.prefix}".rstrip("/"), "endpoint": workspace.bucket.endpoint,
        "credentialsSecret": SECRET, "medium": "Memory", "quota": "64Mi", "replicas": "1",
    }  # fmt: skip
    workspace.apply(*made.values())
    workspace.reader_files(seeded.rows)
    yield seeded
    cluster.kubectl("delete", "storageclass", *made, "--ignore-not-found")


def _claim(workspace: Workspace, name: str) -> dict[str, Any]:
    claim = _example("claims.yaml")[name]
    claim["metadata"]["namespace"] = workspace.namespace
    return claim


def _phase(workspace: Workspace, name: str) -> Any:
    return workspace.status("pvc", name).get("phase")


def _events(workspace: Workspace, name: str) -> list[str]:
    found = workspace.find("events")
    return [
        one["message"]
        for one in found
        if one["involvedObject"]["name"] == name and "PROVISION" in one["reason"].upper()
    ]


def _said(sentence: str, events: list[str]) -> bool:
    return any(sentence in event for event in events)


def _verify(workspace: Workspace, node: str, claim: str) -> None:
    pod = workspace.reader(f"{claim}-{node}", node, ("verify",), claim=claim)
    pod.start(workspace.cluster)
    assert pod.results(workspace.cluster)["verify"]["wrong"] == []
    pod.delete(workspace.cluster)


def _expect_gone(cluster: Cluster, volume: str) -> None:
    eventually(
        lambda: cluster.kubectl("get", "pv", volume, "--ignore-not-found", "-o", "name").stdout,
        timeout=60, what=f"the volume {volume} is gone", until=lambda name: not name,
    )  # fmt: skip


def test_a_claim_names_a_dataset(workspace: Workspace, cluster: Cluster, classes: Seeded) -> None:
    """An event says what is missing; made, it suffices. Pods of the claim hold the Dataset. In the end all is gone."""
    claim = _claim(workspace, "by-dataset")
    claim["metadata"]["annotations"] = {"forebay.io/dataset": "data"}
    writer = {**claim, "metadata": {**claim["metadata"], "name": "writer"}}
    writer["spec"] = {**claim["spec"], "accessModes": ["ReadWriteMany"]}
    workspace.apply(claim, writer)
    pods = [workspace.reader(f"early-{one}", "node-1", ("verify",), claim=one) for one in ("by-dataset", "writer")]
    for pod in pods:
        pod.start(cluster)
    for name, sentence in (("by-dataset", "no Dataset data in this namespace"), ("writer", "ask for ReadOnlyMany")):
        eventually(
            partial(_events, workspace, name), timeout=30, what=f"an event says: {sentence}",
            until=partial(_said, sentence),
        )  # fmt: skip
    assert _phase(workspace, "by-dataset") == "Pending"

    workspace.apply(workspace.dataset(prefix=classes.prefix), workspace.runtime(replicas=1))

    assert pods[0].results(cluster)["verify"]["wrong"] == []
    assert _phase(workspace, "by-dataset") == "Bound"
    assert _phase(workspace, "writer") == "Pending"
    _verify(workspace, "node-2", "by-dataset")
    volume = workspace.get("pvc", "by-dataset")["spec"]["volumeName"]
    holder = workspace.holder("holder", "node-2", claim="by-dataset")
    cluster.kubectl("delete", "dataset", "data", "-n", workspace.namespace, "--wait=false")
    eventually(
        lambda: workspace.condition("dataset", "data", "Ready").get("message", ""), timeout=30,
        what="the Dataset waits for the pod of the class's claim", until=lambda message: "holder" in message,
    )  # fmt: skip
    for pod in (*pods, holder):
        pod.delete(cluster)
    cluster.kubectl("delete", "pvc", "by-dataset", "-n", workspace.namespace)
    _expect_gone(cluster, volume)
    eventually(lambda: workspace.get("dataset", "data"), timeout=60, what="the Dataset goes", until=lambda one: not one)


def test_a_claim_of_a_bucket(workspace: Workspace, cluster: Cluster, classes: Seeded) -> None:
    """The class's source becomes a Dataset with workers; two claims share it, and the last one takes it away."""
    first = _claim(workspace, "by-bucket")
    second = {**first, "metadata": {**first["metadata"], "name": "another"}}
    workspace.apply(first, second)
    names = ("by-bucket", "another")
    for name in names:
        eventually(partial(_phase, workspace, name), timeout=60, what="bound", until=lambda one: one == "Bound")

    volumes = [workspace.get("pvc", name)["spec"]["volumeName"] for name in names]
    _verify(workspace, "node-1", "by-bucket")
    _verify(workspace, "node-2", "another")

    read = workspace.status("dataset", "demo-bucket")
    assert (read["phase"], read["cachedBytes"]) == ("Ready", classes.total_bytes), json.dumps(read)
    cluster.kubectl("delete", "pvc", "by-bucket", "-n", workspace.namespace)
    _expect_gone(cluster, volumes[0])
    _verify(workspace, "node-1", "another")
    cluster.kubectl("delete", "pvc", "another", "-n", workspace.namespace)
    _expect_gone(cluster, volumes[1])
    for kind in ("runtime", "dataset"):
        eventually(
            partial(workspace.get, kind, "demo-bucket"), timeout=60, what=f"the {kind} goes",
            until=lambda one: not one,
        )  # fmt: skip
