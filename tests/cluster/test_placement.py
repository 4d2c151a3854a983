"""Where workers run, and what their tiers live on."""

from collections.abc import Callable
from typing import Any

import pytest

from testkit.cluster import Cluster
from testkit.image import Image
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]


def _nodes(workspace: Workspace, name: str = "data") -> list[str]:
    """The nodes of a Runtime's workers that are there to stay."""
    pods = [pod for pod in workspace.workers(name) if "deletionTimestamp" not in pod["metadata"]]
    return sorted(pod["spec"].get("nodeName", "") for pod in pods)


def _on(node: str) -> dict[str, Any]:
    requirement = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}}


def test_workers_spread_and_follow_the_datasets_nodes(workspace: Workspace) -> None:
    """Two workers take two nodes; a Dataset that wants one node gets both there, also when it changes its mind."""
    workspace.apply(workspace.dataset(), workspace.runtime())
    workspace.wait("runtime", "data")
    assert _nodes(workspace) == ["node-1", "node-2"]

    for node in ("node-2", "node-1"):
        workspace.apply(workspace.dataset(nodeAffinity=_on(node)))
        eventually(
            lambda: _nodes(workspace), timeout=120, what=f"both workers are on {node}",
            until=[node, node].__eq__,
        )  # fmt: skip
    workspace.wait("runtime", "data", timeout=120)


def test_exclusive_workers_share_no_node(workspace: Workspace, cluster: Cluster, forebay: Image) -> None:
    """On a node of its own, whoever came first keeps the other kind away; when it goes, the other comes."""
    cluster.add_node("node-3", images=(forebay.archive,))
    try:
        place = _on("node-3")
        alone = workspace.dataset("alone", placement="Exclusive", nodeAffinity=place)
        shared = workspace.dataset("shared", nodeAffinity=place)
        workspace.apply(alone, workspace.runtime("alone", replicas=1))
        workspace.wait("runtime", "alone")

        workspace.apply(shared, workspace.runtime("shared", replicas=1))
        eventually(
            lambda: workspace.condition("runtime", "shared", "Ready").get("reason"),
            timeout=30, what="the shared worker finds no place", until=lambda reason: reason == "WorkersUnschedulable",
        )  # fmt: skip
        cluster.kubectl("delete", "runtime", "alone", "-n", workspace.namespace, "--wait=false")
        workspace.wait("runtime", "shared")
        workspace.apply(workspace.runtime("alone", replicas=1))
        eventually(
            lambda: workspace.condition("runtime", "alone", "Ready").get("reason"),
            timeout=30, what="the exclusive worker waits", until=lambda reason: reason == "WorkersUnschedulable",
        )  # fmt: skip
        cluster.kubectl("delete", "runtime,dataset", "--all", "-n", workspace.namespace, timeout=60)
        eventually(lambda: workspace.find("pods"), timeout=60, what="the node is empty", until=lambda pods: not pods)
    finally:
        cluster.remove_node("node-3")


TIER_ROOT = "/var/lib/forebay/tiers"
"""What manifests/ lets the node plugin give away."""


def test_host_path_tier_outlives_its_pod(workspace: Workspace, cluster: Cluster, seed: Seed) -> None:
    """Chunks on the node are there again when the worker comes back, all of it under Pod Security restricted."""
    seeded = seed(big_objects(count=2, size=9 << 20))
    tiers = [{"medium": "HDD", "quota": "256Mi", "volume": {"hostPath": {"paths": [TIER_ROOT]}}}]
    workspace.apply(
        workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1, tiers=tiers), workspace.dataload()
    )
    workspace.wait("dataload", "load", "Complete", timeout=120)

    node = _nodes(workspace)[0]
    workspace.apply(workspace.dataset(prefix=seeded.prefix, nodeAffinity=_on(node)))
    victim = workspace.workers()[0]["metadata"]["name"]
    cluster.kubectl("delete", "pod", victim, "-n", workspace.namespace, "--wait", timeout=90)
    workspace.wait("runtime", "data", timeout=90)
    eventually(
        lambda: workspace.status("dataset", "data").get("cachedPercent"), timeout=60, what="the cache is warm again",
        until=lambda percent: percent == 100,
    )  # fmt: skip
    metrics = workspace.metrics(victim)
    fetched = sum(value for name, value in metrics.items() if name.startswith("forebay_worker_origin_bytes_total"))
    assert fetched == 0


def test_a_host_path_that_is_not_given_away(workspace: Workspace, seed: Seed) -> None:
    """The pod waits, its event names the folder and the ones that may be used, and the Runtime says where to look."""
    seeded = seed(big_objects(count=1, size=1 << 20))
    tiers = [{"medium": "HDD", "quota": "256Mi", "volume": {"hostPath": {"paths": ["/etc"]}}}]
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1, tiers=tiers))

    eventually(
        lambda: [one["message"] for one in workspace.find("events") if one["reason"] == "FailedMount"],
        timeout=60, what="the pod's event says it",
        until=lambda said: any(f"no tier may live in /etc on this node, only in: {TIER_ROOT}" in one for one in said),
    )  # fmt: skip
    condition = workspace.condition("runtime", "data", "Ready")
    assert (condition["status"], "--tier-root" in condition["message"]) == ("False", True)


def _node_files(cluster: Cluster, folder: str) -> list[str]:
    """Everything below a folder on any node."""
    found = []
    for node in cluster.nodes.values():
        lines = node.run(["sh", "-c", 'test ! -d "$0" || find "$0"', folder]).stdout.splitlines()
        found += [f"{node.name}: {line}" for line in lines]
    return found


def _fill_nodes(workspace: Workspace, cluster: Cluster, seed: Seed) -> str:
    """Two workers with files in a folder of their nodes; the Runtime's part of that folder."""
    seeded = seed(big_objects(count=4, size=9 << 20))
    tiers = [
        {"medium": "Memory", "quota": "16Mi"},
        {"medium": "HDD", "quota": "256Mi", "volume": {"hostPath": {"paths": [TIER_ROOT]}}},
    ]
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(tiers=tiers), workspace.dataload())
    workspace.wait("dataload", "load", "Complete", timeout=120)
    folder = f"{TIER_ROOT}/{workspace.namespace}/{workspace.get('runtime', 'data')['metadata']['uid']}"
    assert {line.partition(":")[0] for line in _node_files(cluster, folder)} == {"node-1", "node-2"}
    return folder


LIST_PATIENCE = 180
"""The kubelet brings a changed ConfigMap within its sync period, a minute and a half; then the plugin's grace."""


@pytest.mark.parametrize("first", ["runtime", "dataset", "namespace"])
def test_host_path_tier_leaves_no_files(workspace: Workspace, cluster: Cluster, seed: Seed, first: str) -> None:
    """Two workers' folders go from their nodes, whatever is deleted: a list of Runtimes says whose may stay."""
    folder = _fill_nodes(workspace, cluster, seed)

    if first == "namespace":
        workspace.delete(timeout=60)
    else:
        cluster.kubectl("delete", first, "data", "-n", workspace.namespace, "--wait=false")

    eventually(
        lambda: _node_files(cluster, folder), timeout=LIST_PATIENCE, what="nothing is left on any node",
        until=lambda left: not left,
    )  # fmt: skip


def test_scaling_in_frees_the_folders_of_the_last_worker_only(
    workspace: Workspace, cluster: Cluster, seed: Seed
) -> None:
    """The one that goes takes its folder with it; the one that stays keeps every file."""
    folder = _fill_nodes(workspace, cluster, seed)
    kept = [line for line in _node_files(cluster, folder) if "/data-worker-0/chunks/objects/" in line]

    cluster.kubectl("scale", "runtime", "data", "-n", workspace.namespace, "--replicas=1")

    eventually(
        lambda: [line for line in _node_files(cluster, folder) if "/data-worker-1" in line], timeout=LIST_PATIENCE,
        what="the last worker's folder is gone", until=lambda left: not left,
    )  # fmt: skip
    assert set(kept) <= set(_node_files(cluster, folder))


def test_claim_tier_is_warm_after_its_pod_and_gone_with_its_runtime(
    workspace: Workspace, cluster: Cluster, seed: Seed
) -> None:
    """A tier in a PersistentVolumeClaim: the next pod has the chunks again, and the claim goes with the Runtime."""
    seeded = seed(big_objects(count=2, size=9 << 20))
    folder, name = "/var/lib/forebay/test-claim", f"{workspace.namespace}-tier"
    cluster.nodes["node-1"].run(["mkdir", "-p", folder])
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]}
    disk = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "256Mi"},
            "storageClassName": name,
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": folder},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
        },
    }
    # A volume of an interrupted run is Released and would never be bound again.
    cluster.kubectl("delete", "pv", name, "--ignore-not-found")
    workspace.apply(disk)
    claim = {"volumeClaimTemplate": {"storage": "256Mi", "storageClassName": name}}
    tiers = [{"medium": "SSD", "quota": "128Mi", "volume": claim}]
    workspace.apply(
        workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1, tiers=tiers), workspace.dataload()
    )
    workspace.wait("dataload", "load", "Complete", timeout=120)

    victim = workspace.workers()[0]["metadata"]["name"]
    cluster.kubectl("delete", "pod", victim, "-n", workspace.namespace, "--wait", timeout=90)
    eventually(
        lambda: workspace.status("dataset", "data").get("cachedPercent"), timeout=90, what="the cache is warm again",
        until=lambda percent: percent == 100,
    )  # fmt: skip
    metrics = workspace.metrics(victim)
    assert (
        sum(value for series, value in metrics.items() if series.startswith("forebay_worker_origin_bytes_total")) == 0
    )

    cluster.kubectl("delete", "runtime", "data", "-n", workspace.namespace, "--wait=false")
    eventually(
        lambda: [one["metadata"]["name"] for one in workspace.find("pvc") if one["metadata"]["name"] != "data"],
        timeout=90, what="the tier's claim is gone", until=lambda claims: not claims,
    )  # fmt: skip
    cluster.kubectl("delete", "pv", name)
    cluster.nodes["node-1"].run(["rm", "-rf", folder])


def test_layout_changes_without_a_restart(workspace: Workspace, seed: Seed) -> None:
    """Replicated workers each hold everything after a load; Sharded ones share it; the pods stay."""
    seeded = seed(big_objects(count=3, size=5 << 20))
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(), workspace.dataload("sharded"))
    workspace.wait("dataload", "sharded", "Complete")
    total = workspace.status("dataset", "data")["totalBytes"]
    pods = [pod["metadata"]["uid"] for pod in workspace.workers()]

    workspace.apply(workspace.runtime(layout="Replicated"))
    eventually(
        lambda: workspace.status("runtime", "data"), timeout=30, what="the ring is Replicated",
        until=lambda status: status.get("layout") == "Replicated",
    )  # fmt: skip
    workspace.apply(workspace.dataload("replicated"))
    workspace.wait("dataload", "replicated", "Complete")

    held = eventually(
        lambda: workspace.status("runtime", "data"), timeout=30, what="every worker holds everything",
        until=lambda status: status.get("heldBytes", 0) >= 2 * total,
    )  # fmt: skip
    assert held["readyReplicas"] == 2
    assert workspace.status("dataset", "data")["cachedBytes"] == total
    assert [pod["metadata"]["uid"] for pod in workspace.workers()] == pods
