"""Whatever is deleted first, nothing stays behind."""

from collections.abc import Callable

import pytest

from testkit.cluster import Cluster
from testkit.proofs import Proof
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually, throughout
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]


def _volumes(cluster: Cluster, uid: str) -> str:
    return cluster.kubectl("get", "pv", f"forebay-{uid}", "--ignore-not-found", "-o", "name").stdout


def _traces(cluster: Cluster, uid: str, pods: list[str]) -> list[str]:
    """Mounts of the dataset and folders of its workers that are left on any node."""
    left = []
    for node in cluster.nodes.values():
        mounts = node.run(["cat", "/proc/self/mountinfo"]).stdout.splitlines()
        left += [line for line in mounts if uid in line]
        folders = node.run(["ls", "/var/lib/kubelet/pods"]).stdout.split()
        left += [f"{node.name}: pods/{pod}" for pod in pods if pod in folders]
    return left


def _expect_clean(workspace: Workspace, cluster: Cluster, uid: str, pods: list[str]) -> None:
    """Nothing is Terminating for over 60 s: no PV, no mounts, no cache files."""
    eventually(lambda: _volumes(cluster, uid), timeout=60, what="the PV is gone", until=lambda name: not name)
    eventually(
        lambda: workspace.get("dataset", "data") or workspace.get("pvc", "data"),
        timeout=60, what="Dataset and PVC are gone", until=lambda one: not one,
    )  # fmt: skip
    eventually(
        lambda: _traces(cluster, uid, pods), timeout=60, what="no mounts and no cache files are left",
        until=lambda left: not left,
    )  # fmt: skip


@pytest.mark.proof("deletion-orders", quick=1, full=15)
def test_deleting_in_any_order_ends_clean(workspace: Workspace, cluster: Cluster, seed: Seed, proof: Proof) -> None:
    """Dataset first, Runtime first, with a pod that reads, and the namespace with all in it."""
    seeded = seed(big_objects(count=2, size=9 << 20))
    workspace.reader_files(seeded.rows)
    orders = (("dataset", "runtime"), ("runtime", "dataset"))
    for attempt in range(proof.rounds):
        for order in orders:
            workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(), workspace.dataload())
            workspace.wait("dataload", "load", "Complete")
            uid = workspace.get("dataset", "data")["metadata"]["uid"]
            holder = workspace.holder(f"holder-{attempt}", "node-1")
            pods = [pod["metadata"]["uid"] for pod in workspace.workers()]
            for kind in order:
                cluster.kubectl("delete", kind, "data", "-n", workspace.namespace, "--wait=false")
            throughout(
                lambda: holder.phase(cluster), seconds=3, what="the pod runs on", holds=lambda phase: phase == "Running"
            )
            held = workspace.condition("dataset", "data", "Ready")
            assert f"holder-{attempt}" in held.get("message", ""), held
            holder.delete(cluster)

            _expect_clean(workspace, cluster, uid, pods)
            cluster.kubectl("delete", "dataload", "load", "-n", workspace.namespace, "--ignore-not-found")
            proof.counts[f"{order[0]} first"] += 1
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime())
    workspace.wait("dataset", "data")
    uid = workspace.get("dataset", "data")["metadata"]["uid"]
    pods = [pod["metadata"]["uid"] for pod in workspace.workers()]
    workspace.holder("last", "node-2")

    workspace.delete(timeout=60)

    eventually(lambda: _volumes(cluster, uid), timeout=60, what="the PV is gone", until=lambda name: not name)
    eventually(
        lambda: _traces(cluster, uid, pods),
        timeout=60,
        what="nothing is left on the nodes",
        until=lambda left: not left,
    )
    proof.counts["namespace with all in it"] += 1
