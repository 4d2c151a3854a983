"""Pods on two nodes read a bucket through its PVC: the right bytes from every place, each fetched once."""

from collections.abc import Callable

import pytest

from testkit.proofs import Proof
from testkit.seeding import Seeded, awkward_objects, big_objects, random_object
from testkit.store import Store
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]
NODES = ("node-1", "node-2")


def _metric(workspace: Workspace, name: str, label: str = "") -> float:
    """A metric summed over the workers; with a label, the series that have it."""
    return sum(
        value
        for pod in workspace.workers()
        for series, value in workspace.metrics(pod["metadata"]["name"]).items()
        if series.partition("{")[0] == f"forebay_worker_{name}" and label in series
    )


def _verify(workspace: Workspace, node: str, attempt: str) -> None:
    """Compare every file with the source from a pod on the node; the pod is removed."""
    pod = workspace.reader(f"verify-{node}-{attempt}", node, ("verify",))
    pod.start(workspace.cluster)
    assert pod.results(workspace.cluster)["verify"]["wrong"] == []
    pod.delete(workspace.cluster)


def test_bytes_are_right_from_store_memory_ssd_and_peer(workspace: Workspace, seed: Seed) -> None:
    """Awkward names and large files, cold and warm, on both nodes; every kind of place has served."""
    seeded = seed({**awkward_objects(), **big_objects(count=6, size=16 << 20)})
    workspace.reader_files(seeded.rows)
    tiers = [{"medium": "Memory", "quota": "48Mi"}, {"medium": "SSD", "quota": "256Mi"}]
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(layout="Replicated", tiers=tiers))
    workspace.wait("dataset", "data")

    for node in NODES:
        _verify(workspace, node, "cold")
        _verify(workspace, node, "warm")

    assert _metric(workspace, "miss_bytes_total", 'source="store"') > 0
    assert _metric(workspace, "peer_bytes_total") > 0
    assert _metric(workspace, "hit_bytes_total", 'tier="Memory"') > 0
    assert _metric(workspace, "hit_bytes_total", 'tier="SSD"') > 0


def test_without_workers_the_store_itself_is_read(workspace: Workspace, seed: Seed) -> None:
    """A pod that has the volume goes on reading when every worker is gone."""
    seeded = seed(big_objects(count=2, size=8 << 20))
    workspace.reader_files(seeded.rows)
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1))
    workspace.wait("dataset", "data")
    holder = workspace.holder("holder", "node-1")
    workspace.apply(workspace.runtime(replicas=0))
    workspace.eventually_no_workers()

    _verify(workspace, "node-1", "direct")

    holder.delete(workspace.cluster)


def _who_fetched(workspace: Workspace) -> str:
    """The workers' own counters of what may come twice, to tell why it did."""
    kinds = ("origin", "hedged", "instead", "retried", "fills_total", "evict", "tier")
    return "\n".join(
        f"{pod['metadata']['name']}: {series} {value:.0f}"
        for pod in workspace.workers()
        for series, value in workspace.metrics(pod["metadata"]["name"]).items()
        if value and not series.endswith("_created") and any(kind in series for kind in kinds)
    )


@pytest.mark.proof("single-fetch", quick=1, full=20)
def test_each_byte_is_fetched_once(workspace: Workspace, seed: Seed, store: Store, proof: Proof) -> None:
    """Both nodes read the same cold file at the same time, and the store's own log shows each byte once."""
    size = 96 << 20
    workspace.apply(workspace.dataset(prefix=workspace.namespace), workspace.runtime())
    for attempt in range(proof.rounds):
        name = f"cold-{attempt}.bin"
        seeded = seed(random_object(name, size), prefix=workspace.namespace)
        workspace.eventually_listed(attempt + 1, timeout=90)
        workspace.reader_files(seeded.rows)
        mark = store.mark()
        pods = [workspace.reader(f"{node}-{attempt}", node, ("read",)) for node in NODES]
        for pod in pods:
            pod.start(workspace.cluster)
        for pod in pods:
            assert pod.results(workspace.cluster)["read"]["bytes"] == size
            pod.delete(workspace.cluster)
        fetched = sum(
            request.bytes_sent
            for request in store.log_since(mark)
            if request.method == "GET" and request.key.endswith(name)
        )

        assert fetched == size, _who_fetched(workspace)
        proof.counts["bytes read"] += 2 * size
        proof.counts["bytes fetched"] += fetched
