"""What workers have on nodes goes with the Runtime or its Dataset, in bounded time."""

from datetime import UTC, datetime, timedelta
from typing import Any

from forebay_operator.model.dataset import Dataset
from forebay_operator.model.runtime import Runtime
from forebay_operator.reconcile import node_files
from forebay_operator.reconcile import runtime as reconcile
from forebay_operator.reconcile.plan import Plan, WorkerPlace
from forebay_operator.reconcile.pods import WorkerPod, read

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LATE = NOW + node_files.PATIENCE
FOLDER = "/data/r/demo-worker-0 on node"
DATASET = Dataset.read(
    {
        "metadata": {"name": "demo", "namespace": "ns", "uid": "d"},
        "spec": {"mounts": [{"name": "m", "source": "s3://bucket"}]},
    }
)


def runtime(*, status: dict[str, Any] | None = None, host_path: bool = True, **metadata: Any) -> Runtime:
    """A Runtime with a tier on the node, held by our finalizer."""
    volume = {"volume": {"hostPath": {"path": "/data"}}} if host_path else {}
    return Runtime.read(
        {
            "metadata": {
                "name": "demo", "namespace": "ns", "uid": "r", "generation": 2,
                "finalizers": ["forebay.io/node-files"], **metadata,
            },
            "spec": {"replicas": 1, "tiers": [{"medium": "SSD", "quota": "64Mi", **volume}]},
            "status": status or {},
        }
    )  # fmt: skip


def deleted(**options: Any) -> Runtime:
    """The same, deleted now."""
    return runtime(deletionTimestamp="2026-01-02T00:00:00Z", **options)


def pod(*, running: bool = True) -> WorkerPod:
    """The worker's pod."""
    state: dict[str, Any] = {"running": {}} if running else {"waiting": {}}
    return read(
        {
            "metadata": {"name": "demo-worker-0", "uid": "p", "labels": {"forebay.io/dataset-uid": "d"}},
            "spec": {"nodeName": "node"},
            "status": {"podIP": "10.0.0.1", "containerStatuses": [{"name": "worker", "state": state}]},
        }
    )


def plan(subject: Runtime, now: datetime = NOW, **changes: Any) -> Plan:
    """The plan for these facts; by default the worker runs and has its Dataset."""
    facts: dict[str, Any] = {
        "dataset": DATASET,
        "worker_set": {"metadata": {"namespace": "ns", "name": "demo-worker"}, "status": {"updatedReplicas": 1}},
        "pods": (pod(),),
        "reports": {},
        "access_revision": "5",
        "image": "image",
        **changes,
    }
    return reconcile.plan_runtime(reconcile.Observed(runtime=subject, **facts), now)


def rows(node: str = "node") -> dict[str, Any]:
    """A status whose ring has the worker."""
    return {"workers": [{"id": "demo-worker-0", "address": "10.0.0.1", "podUID": "p", "node": node, "state": "active"}]}


def test_only_tiers_on_nodes_hold_their_runtime() -> None:
    """Our finalizer comes before the first worker, and only where one has files on a node."""
    assert plan(runtime(finalizers=[])).hold
    assert not plan(runtime()).hold
    assert not plan(runtime(finalizers=[], host_path=False)).hold
    assert plan(deleted(finalizers=[])) == Plan()


def test_deleted_runtime_waits_until_its_workers_have_removed_their_files() -> None:
    """Each is asked; the finalizer goes once all have answered, and nothing is said."""
    asked = plan(deleted())
    answered = plan(deleted(), cleared=frozenset({"p"}))

    assert asked.clear == (WorkerPlace("p", "10.0.0.1"),)
    assert (asked.release, asked.requeue_after) == (False, reconcile.FAST)
    assert answered == Plan(release=True)


def test_silent_worker_keeps_its_runtime_for_a_bounded_time() -> None:
    """Then folder and node are named, and the Runtime goes."""
    waiting = (pod(running=False),)
    before = plan(deleted(), LATE - timedelta(seconds=1), pods=waiting)
    after = plan(deleted(), LATE, pods=waiting)

    assert (before.release, before.clear, before.events) == (False, (), ())
    assert after.release
    assert [event.reason for event in after.events] == ["NodeFilesLeft"]
    assert FOLDER in after.events[0].message


def test_worker_that_nobody_can_ask_is_not_waited_for() -> None:
    """Without a key, or with neither pod nor StatefulSet, the folders are named at once."""
    keyless = plan(deleted(), dataset=None)
    gone = plan(deleted(status=rows()), pods=(), worker_set=None)

    for found in (keyless, gone):
        assert found.release
        assert FOLDER in found.events[0].message
    assert not plan(deleted(status=rows()), pods=()).release, "the StatefulSet makes the pod anew"


def test_runtime_without_workers_goes_at_once() -> None:
    """Nobody has files."""
    assert plan(deleted(), pods=(), worker_set=None) == Plan(release=True)


def test_end_of_the_dataset_clears_before_the_workers_go() -> None:
    """The StatefulSet stays until they have answered; the status says since when there is no Dataset."""
    asked = plan(runtime(), over=True)
    assert asked.status is not None
    waiting = runtime(status=asked.status)
    answered = plan(waiting, over=True, cleared=frozenset({"p"}))
    late = plan(waiting, LATE, over=True)

    assert (asked.apply, asked.delete, asked.clear) == ((), (), (WorkerPlace("p", "10.0.0.1"),))
    assert [ref.kind for ref in answered.delete] == [ref.kind for ref in late.delete] == ["StatefulSet"]
    assert "NodeFilesLeft" not in [event.reason for event in answered.events]
    assert "NodeFilesLeft" in [event.reason for event in late.events]
    assert not asked.release
    assert not late.release


def test_workers_without_files_on_nodes_do_not_notice() -> None:
    """Their StatefulSet goes with the Dataset itself, as ever."""
    elsewhere = plan(runtime(host_path=False, finalizers=[]), over=True)

    assert elsewhere.clear == ()
    assert elsewhere.apply
    assert elsewhere.delete == ()
