"""The operator as a process: many objects at once, and one of two leading."""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from testkit.cluster import Cluster
from testkit.image import Image
from testkit.install import OPERATOR_NAMESPACE
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

MANY = 200


def _lease(cluster: Cluster) -> dict[str, Any]:
    text = cluster.kubectl("get", "lease", "forebay-operator", "-n", OPERATOR_NAMESPACE, "-o", "json").stdout
    spec: dict[str, Any] = json.loads(text)["spec"]
    return spec


def _leader(cluster: Cluster) -> str:
    """The pod that leads."""
    return str(eventually(lambda: _lease(cluster).get("holderIdentity"), timeout=30, what="an operator leads"))


def _peak_memory(cluster: Cluster, pod: str) -> int:
    """The most that the operator's process ever had resident, in bytes."""
    program = "print(open('/proc/1/status').read())"
    status = cluster.kubectl("exec", "-n", OPERATOR_NAMESPACE, pod, "--", "python", "-c", program).stdout
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _count(workspace: Workspace, kind: str, phase: str) -> int:
    phases = "jsonpath={range .items[*]}{.status.phase} {end}"
    return workspace.cluster.kubectl("get", kind, "-n", workspace.namespace, "-o", phases).stdout.split().count(phase)


def _versions(workspace: Workspace) -> dict[str, str]:
    kinds = "datasets,runtimes,statefulsets,services,serviceaccounts,secrets,networkpolicies,poddisruptionbudgets,pvc"
    text = workspace.cluster.kubectl("get", kinds, "-n", workspace.namespace, "-o", "json", timeout=120).stdout
    items = json.loads(text)["items"]
    return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in items}


def test_many_datasets_at_once(workspace: Workspace, cluster: Cluster) -> None:
    """200 Datasets with Runtimes at replicas 0: all reconciled, no error, under 200 MiB, and quiet afterwards."""
    leader = _leader(cluster)
    names = [f"many-{number}" for number in range(MANY)]
    workspace.apply(
        *(workspace.dataset(name, prefix=name) for name in names),
        *(workspace.runtime(name, replicas=0) for name in names),
    )
    for kind, phase in (("runtimes", "Ready"), ("pvc", "Bound")):
        eventually(
            partial(_count, workspace, kind, phase),
            timeout=240, what=f"{MANY} {kind} are {phase}", until=lambda count: count == MANY,
        )  # fmt: skip
    assert _peak_memory(cluster, leader) < 200 << 20
    logs = cluster.kubectl("logs", "-n", OPERATOR_NAMESPACE, leader, timeout=120).stdout.splitlines()
    assert [line for line in logs if workspace.namespace in line and '"level": "error"' in line] == []

    # The volume controller is slower than we are: what it still writes is not ours to judge.
    eventually(
        lambda: [one["status"].get("conditions", []) for one in workspace.find("datasets")],
        timeout=120, what="every Dataset has seen its claim bound",
        until=lambda all_: sum(
            one["reason"] == "ClaimBound" for conditions in all_ for one in conditions
        ) == MANY,
    )  # fmt: skip
    before = _versions(workspace)
    watched = cluster.kubectl(
        "get", "datasets", "-n", workspace.namespace, "--watch-only", "--request-timeout=15s", "-o", "name",
        timeout=60, check=False,
    ).stdout  # fmt: skip
    assert watched.strip() == ""
    assert _versions(workspace) == before


def test_the_other_operator_takes_over(workspace: Workspace, cluster: Cluster) -> None:
    """The leader is killed without a chance to say so; within 20 s the other one leads and works."""
    former = _leader(cluster)
    transitions = int(_lease(cluster)["leaseTransitions"])
    begun = time.monotonic()
    cluster.kubectl("delete", "pod", "-n", OPERATOR_NAMESPACE, former, "--force", "--grace-period=0")
    workspace.apply(workspace.dataset(), workspace.runtime(replicas=0))

    eventually(
        lambda: workspace.status("runtime", "data").get("phase"),
        timeout=25, what="the other operator has reconciled", until=lambda phase: phase == "Ready",
    )  # fmt: skip
    assert time.monotonic() - begun < 20
    assert _leader(cluster) != former
    assert int(_lease(cluster)["leaseTransitions"]) == transitions + 1


@pytest.mark.timeout(400)
def test_a_dead_node_gives_up_its_share(
    workspace: Workspace, cluster: Cluster, forebay: Image, seed: Callable[..., Seeded]
) -> None:
    """A node dies without a word: its worker's chunks get another owner, and a load completes without it."""
    seeded = seed(big_objects(count=3, size=5 << 20))
    cluster.add_node("node-3", images=(forebay.archive,))
    try:
        requirement = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-2", "node-3"]}
        place = {"required": {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}}
        workspace.apply(workspace.dataset(prefix=seeded.prefix, nodeAffinity=place), workspace.runtime())
        workspace.wait("runtime", "data")
        workspace.wait("dataset", "data")
        rows = workspace.status("runtime", "data")["workers"]
        assert {row["node"] for row in rows} == {"node-2", "node-3"}

        cluster.nodes["node-3"].kill()
        eventually(
            lambda: {row["node"]: row["state"] for row in workspace.status("runtime", "data")["workers"]},
            timeout=150, what="the dead worker is out of the ring",
            until=lambda states: states == {"node-2": "active", "node-3": "joining"},
        )  # fmt: skip
        workspace.apply(workspace.dataload())
        workspace.wait("dataload", "load", "Complete")
    finally:
        cluster.remove_node("node-3")
