"""The ring follows the pods, one epoch at a time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from forebay_operator.model.runtime import Runtime
from forebay_operator.reconcile import membership
from forebay_operator.reconcile.pods import WorkerPod
from forebay_protocol.control import IndexState, IndexStatus, WorkerStatus
from forebay_protocol.ring import MemberState, Ring

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def pod(ordinal: int, uid: str = "", **changes: Any) -> WorkerPod:
    """A running worker."""
    facts = WorkerPod(
        name=f"demo-worker-{ordinal}", uid=uid or f"uid-{ordinal}", address=f"10.0.0.{ordinal}", node="n",
        running=True, ready=True, unready_since=None, deleting=False, dataset_uid="d", access_revision="", trouble=None,
    )  # fmt: skip
    return replace(facts, **changes)


def report(epoch: int = 0) -> WorkerStatus:
    """A worker that has nothing to say but its epoch."""
    return WorkerStatus(
        id="w", epoch=epoch, dataset_revision="", index=IndexStatus(state=IndexState.NONE), tiers=(), cached_bytes=0,
        held_bytes=0, window_hit_bytes=0, window_miss_bytes=0, origin_bytes=0, peer_bytes=0, corrupt_chunks=0,
    )  # fmt: skip


def runtime(ring: Ring | None = None, layout: str = "Sharded") -> Runtime:
    """A Runtime whose status records the ring."""
    status: dict[str, Any] = {}
    if ring is not None:
        rows = [membership.row(member, None).to_json() for member in ring.members]
        status = {"ringEpoch": ring.epoch, "layout": ring.layout.value, "workers": rows, "readers": ring.readers}
    spec = {"replicas": 2, "layout": layout, "tiers": [{"medium": "Memory", "quota": "64Mi"}]}
    return Runtime.read({"metadata": {"name": "demo", "namespace": "ns"}, "spec": spec, "status": status})


def test_first_ring() -> None:
    """The first pods make epoch 1, in the order of their ordinals."""
    ring = membership.wanted(runtime(), [pod(1), pod(0)], {}, NOW)

    assert ring.epoch == 1
    assert [member.id for member in ring.members] == ["demo-worker-0", "demo-worker-1"]


def test_unchanged_pods_keep_the_epoch() -> None:
    """The status is the record of what was published: reading it back changes nothing."""
    first = membership.wanted(runtime(), [pod(0), pod(1)], {}, NOW)

    assert membership.wanted(runtime(first), [pod(1), pod(0)], {}, NOW) == first


def test_replaced_pod_goes_to_the_end() -> None:
    """The first member holds the index: a newcomer without one does not become first because of its name."""
    first = membership.wanted(runtime(), [pod(0), pod(1)], {}, NOW)
    second = membership.wanted(runtime(first), [pod(0, uid="new"), pod(1)], {}, NOW)

    assert second.epoch == 2
    assert [member.id for member in second.members] == ["demo-worker-1", "demo-worker-0"]


def test_who_does_not_run_owns_nothing() -> None:
    """A pod that is leaving or has no address is no member; one whose process is down is not active."""
    pods = [pod(0, running=False), pod(1, deleting=True), pod(2, address="")]
    ring = membership.wanted(runtime(), pods, {}, NOW)

    assert [(member.id, member.state) for member in ring.members] == [("demo-worker-0", MemberState.JOINING)]


def test_epoch_exceeds_what_workers_remember() -> None:
    """Workers of a re-created Runtime may remember an old ring: the new one must win."""
    assert membership.wanted(runtime(), [pod(0)], {"demo-worker-0": report(epoch=41)}, NOW).epoch == 42

    published = membership.wanted(runtime(), [pod(0)], {}, NOW)
    assert membership.wanted(runtime(published), [pod(0)], {"demo-worker-0": report(epoch=9)}, NOW).epoch == 10


def test_layout_is_part_of_the_ring() -> None:
    """A changed layout is a new epoch."""
    first = membership.wanted(runtime(), [pod(0)], {}, NOW)

    assert membership.wanted(runtime(first, layout="Replicated"), [pod(0)], {}, NOW).epoch == 2


def test_reading_nodes_are_part_of_the_ring() -> None:
    """A node more is a new epoch: the others' shares become smaller. The same number is none."""
    first = membership.wanted(runtime(), [pod(0)], {}, NOW, 2)
    second = membership.wanted(runtime(first), [pod(0)], {}, NOW, 4)

    assert (first.readers, second.readers, second.epoch) == (2, 4, first.epoch + 1)
    assert membership.wanted(runtime(second), [pod(0)], {}, NOW, 4) == second


def test_lost_worker_gives_up_its_share() -> None:
    """A node that died leaves a pod that seems to run: after a while of silence others own its chunks."""
    silent = pod(0, ready=False, unready_since=NOW - timedelta(seconds=31))
    starting = pod(1, ready=False, unready_since=NOW - timedelta(seconds=5))
    slow = pod(2, ready=False, unready_since=NOW - timedelta(hours=1))
    ring = membership.wanted(runtime(), [silent, starting, slow], {"demo-worker-2": report()}, NOW)

    assert [member.state for member in ring.members] == [MemberState.JOINING, MemberState.ACTIVE, MemberState.ACTIVE]
