"""Parts of the system and of Kubernetes die; everything converges without a hand, and readers see right bytes."""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.cluster import Cluster
from testkit.proofs import Proof
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]
KINDS = ("datasets", "runtimes", "dataloads", "statefulsets", "pvc")


def _verify(workspace: Workspace, node: str, name: str) -> None:
    pod = workspace.reader(name, node, ("verify",))
    pod.start(workspace.cluster)
    assert pod.results(workspace.cluster)["verify"]["wrong"] == []
    pod.delete(workspace.cluster)


def _operator_pods(cluster: Cluster) -> list[str]:
    listed = cluster.kubectl(
        "get", "pods", "-n", "forebay-system", "-o", "name", "--field-selector=status.phase=Running"
    )  # fmt: skip
    return listed.stdout.split()


@pytest.mark.proof("operator-killed-mid-flow", quick=2, full=60)
def test_the_operator_is_killed_in_the_middle_of_each_flow(
    workspace: Workspace, cluster: Cluster, seed: Seed, proof: Proof
) -> None:
    """Both operators are killed at a random moment of creating, scaling and deleting; the end is the same."""
    seeded = seed(big_objects(count=2, size=5 << 20))
    workspace.reader_files(seeded.rows)
    chance = random.Random(proof.question)

    def kill_after(seconds: float) -> None:
        moment = random.Random(seconds)
        eventually(lambda: moment.random() > 0.8, timeout=30, what="a random moment comes", interval=seconds / 5)
        victims = eventually(lambda: _operator_pods(cluster), timeout=60, what="an operator runs that can be killed")
        cluster.kubectl("delete", "-n", "forebay-system", "--grace-period=0", "--force", *victims)
        proof.counts["kills"] += 1

    for attempt in range(proof.rounds):
        workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(), workspace.dataload())
        kill_after(chance.uniform(0.05, 1.0))
        workspace.wait("dataload", "load", "Complete", timeout=120)
        workspace.apply(workspace.runtime(replicas=1))
        kill_after(chance.uniform(0.05, 1.0))
        eventually(lambda: len(workspace.workers()), timeout=90, what="one worker is left", until=lambda n: n == 1)
        workspace.wait("dataset", "data", timeout=120)
        _verify(workspace, "node-1", f"verify-{attempt}")
        uid = workspace.get("dataset", "data")["metadata"]["uid"]
        cluster.kubectl("delete", "dataset,runtime,dataload", "--all", "-n", workspace.namespace, "--wait=false")
        kill_after(chance.uniform(0.05, 1.0))
        eventually(
            lambda: [kind for kind in KINDS if workspace.find(kind)]
            + cluster.kubectl("get", "pv", f"forebay-{uid}", "--ignore-not-found", "-o", "name").stdout.split(),
            timeout=120, what="everything is gone", until=lambda left: not left,
        )  # fmt: skip
        proof.counts["flows converged"] += 3


def test_the_api_server_restarts(workspace: Workspace, cluster: Cluster, seed: Seed) -> None:
    """Right after the objects were applied; and reading needs no API server."""
    seeded = seed(big_objects(count=2, size=5 << 20))
    workspace.reader_files(seeded.rows)
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(), workspace.dataload())

    cluster.restart_apiserver()

    workspace.wait("dataload", "load", "Complete", timeout=120)
    _verify(workspace, "node-2", "verify")


def test_a_worker_pod_is_deleted(workspace: Workspace, cluster: Cluster, seed: Seed) -> None:
    """A worker comes back under its name with another address; load and bytes are whole again by themselves."""
    seeded = seed(big_objects(count=4, size=5 << 20))
    workspace.reader_files(seeded.rows)
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(), workspace.dataload())
    workspace.wait("dataload", "load", "Complete")
    epoch = workspace.status("runtime", "data")["ringEpoch"]
    holder = workspace.holder("holder", "node-1")

    victim = workspace.workers()[0]["metadata"]["name"]
    cluster.kubectl("delete", "pod", "-n", workspace.namespace, victim, "--force", "--grace-period=0")
    _verify(workspace, "node-1", "verify-while")

    eventually(
        lambda: workspace.status("runtime", "data"), timeout=90, what="the ring has the new pod",
        until=lambda status: status["ringEpoch"] > epoch and status.get("readyReplicas") == 2,
    )  # fmt: skip
    workspace.wait("dataset", "data")
    _verify(workspace, "node-2", "verify-after")
    holder.delete(cluster)


def test_the_node_plugin_restarts(workspace: Workspace, cluster: Cluster, seed: Seed) -> None:
    """With no mount in use: the next pod mounts again."""
    seeded = seed(big_objects(count=1, size=5 << 20))
    workspace.reader_files(seeded.rows)
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime())
    workspace.wait("dataset", "data")
    _verify(workspace, "node-1", "before")

    cluster.kubectl("delete", "pods", "--all", "-n", "forebay-node", "--wait", timeout=120)

    _verify(workspace, "node-1", "after")


def test_pods_come_to_a_node_whose_plugin_was_replaced(workspace: Workspace, cluster: Cluster, seed: Seed) -> None:
    """The volume was staged there by the plugin before; the next pod gets a mount that works."""
    seeded = seed(big_objects(count=1, size=5 << 20))
    workspace.reader_files(seeded.rows)
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1))
    workspace.wait("dataset", "data")
    before = workspace.holder("before", "node-1")

    cluster.kubectl("delete", "pods", "--all", "-n", "forebay-node", "--wait", timeout=120)

    _verify(workspace, "node-1", "after")
    before.delete(cluster)


def _worker_process(pod_uid: str) -> int:
    """The worker's process in a pod, by the pod's cgroup; the machine sees it, whatever its namespaces."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = pod_uid in (process / "cgroup").read_text().replace("_", "-")
            if inside and b"forebay" in (process / "cmdline").read_bytes():
                return int(process.name)
        except OSError:
            # It ended while we looked.
            continue
    raise LookupError(f"no worker runs in pod {pod_uid}")


def test_a_disk_that_takes_no_writes_is_said_and_read_through(workspace: Workspace, seed: Seed) -> None:
    """Read-only under a living worker: right bytes, a condition and an event that name the tier; then it recovers."""
    seeded = seed(big_objects(count=2, size=9 << 20))
    workspace.reader_files(seeded.rows)
    tiers = [{"medium": "SSD", "quota": "256Mi", "volume": {"emptyDir": {}}}]
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1, tiers=tiers))
    workspace.wait("runtime", "data")
    worker = str(_worker_process(workspace.workers()[0]["metadata"]["uid"]))
    folder = next(
        line.split()[4] for line in Path(f"/proc/{worker}/mountinfo").read_text().splitlines() if "/tier" in line
    )

    objects = f"{folder}/objects"

    def in_pod(*argv: str) -> None:
        done = subprocess.run(
            ["nsenter", "-t", worker, "-m", "--", *argv], check=False, capture_output=True, text=True
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    # A mount of its own, since the catalogue beside it is open for writing.
    in_pod("mount", "--bind", objects, objects)
    in_pod("mount", "-o", "remount,bind,ro", objects)
    _verify(workspace, "node-1", "without-a-disk")

    eventually(
        lambda: workspace.condition("runtime", "data", "TiersReady"), timeout=30, what="the condition says it",
        until=lambda found: (found["status"], found["reason"]) == ("False", "TierWriteFailed"),
    )  # fmt: skip
    eventually(
        lambda: [one["message"] for one in workspace.find("events") if one["reason"] == "TierWriteFailed"],
        timeout=30, what="the event names the tier", until=lambda said: any("SSD" in one for one in said),
    )  # fmt: skip
    in_pod("umount", objects)
    workspace.wait("runtime", "data", "TiersReady")
    workspace.apply(workspace.dataload())
    workspace.wait("dataload", "load", "Complete")
