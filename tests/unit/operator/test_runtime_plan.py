"""What a Runtime's plan says and asks for."""

from datetime import UTC, datetime
from typing import Any

from forebay_operator.model.dataset import Dataset
from forebay_operator.model.runtime import Runtime
from forebay_operator.reconcile import runtime as reconcile
from forebay_operator.reconcile.plan import Plan
from forebay_operator.reconcile.pods import WorkerPod, read
from forebay_protocol.control import IndexState, IndexStatus, Problem, TierStatus, WorkerStatus

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DATASET = Dataset.read(
    {
        "metadata": {"name": "demo", "namespace": "ns", "uid": "d"},
        "spec": {"mounts": [{"name": "m", "source": "s3://bucket"}]},
    }
)


def runtime(replicas: int = 1, status: dict[str, Any] | None = None, **metadata: Any) -> Runtime:
    """A Runtime with one memory tier."""
    return Runtime.read(
        {
            "metadata": {"name": "demo", "namespace": "ns", "uid": "r", "generation": 2, **metadata},
            "spec": {"replicas": replicas, "tiers": [{"medium": "SSD", "quota": "64Mi"}]},
            "status": status or {},
        }
    )


def raw_pod(conditions: list[dict[str, Any]] | None = None, **status: Any) -> dict[str, Any]:
    """A worker pod as the API server shows it."""
    return {
        "metadata": {"name": "demo-worker-0", "uid": "p", "labels": {"forebay.io/dataset-uid": "d"}},
        "spec": {"nodeName": "node"},
        "status": {
            "podIP": "10.0.0.1",
            "conditions": conditions or [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "worker", "state": {"running": {}}}],
            **status,
        },
    }


def report(epoch: int = 1, problem: Problem | None = None, state: IndexState = IndexState.READY) -> WorkerStatus:
    """A worker's status."""
    return WorkerStatus(
        id="demo-worker-0", epoch=epoch, dataset_revision="", index=IndexStatus(state=state, generation=1),
        tiers=(TierStatus(medium="SSD", capacity_bytes=64, used_bytes=8, problem=problem),), cached_bytes=8,
        held_bytes=8, window_hit_bytes=0, window_miss_bytes=0, origin_bytes=0, peer_bytes=0, corrupt_chunks=0,
    )  # fmt: skip


def plan(
    subject: Runtime | None = None,
    pods: tuple[WorkerPod, ...] = (),
    reports: dict[str, WorkerStatus] | None = None,
    **changes: Any,
) -> Plan:
    """The plan for these facts."""
    facts: dict[str, Any] = {
        "runtime": subject or runtime(),
        "dataset": DATASET,
        "worker_set": {"metadata": {"namespace": "ns", "name": "demo-worker"}, "status": {"updatedReplicas": 1}},
        "pods": pods,
        "reports": reports or {},
        "access_revision": "5",
        "image": "image",
        **changes,
    }
    return reconcile.plan_runtime(reconcile.Observed(**facts), NOW)


def condition(found: Plan, kind: str = "Ready") -> tuple[str, str]:
    """Status and reason of a condition."""
    assert found.status is not None
    return next((c["status"], c["reason"]) for c in found.status["conditions"] if c["type"] == kind)


def test_all_children_in_one_plan() -> None:
    """Every look asks for everything: a child that someone deleted comes back."""
    kinds = [manifest["kind"] for manifest in plan().apply]

    assert kinds == ["ServiceAccount", "Service", "NetworkPolicy", "PodDisruptionBudget", "StatefulSet"]


def test_ready_when_workers_serve_the_published_ring() -> None:
    """A pod that is ready but lacks the ring does not count; it gets the ring."""
    pods = (read(raw_pod()),)
    before = plan(pods=pods, reports={"demo-worker-0": report(epoch=0)})
    after = plan(runtime(status=before.status), pods, {"demo-worker-0": report(epoch=1)})

    assert condition(before) == ("False", "WorkersNotReady")
    assert before.ring is not None
    assert [member.id for member in before.ring.behind] == ["demo-worker-0"]
    assert condition(after) == ("True", "WorkersReady")
    assert after.ring is None


def test_scaling_in_is_no_trouble_for_those_who_stay() -> None:
    """One of two workers leaves: the Runtime is ready all the while, and says what goes on."""
    surplus = raw_pod()
    surplus["metadata"] |= {"name": "demo-worker-1", "uid": "q"}
    pods = (read(raw_pod()), read(surplus))
    first = plan(pods=pods, reports={"demo-worker-0": report()})
    leaving = plan(runtime(status=first.status), pods, {"demo-worker-0": report(2), "demo-worker-1": report(2)})
    stuck = plan(runtime(status=first.status), pods, {"demo-worker-1": report(2)})

    assert condition(leaving) == ("True", "ScalingIn")
    assert "Warning" not in [event.type for event in leaving.events]
    assert condition(stuck) == ("False", "WorkersNotReady")


def test_settled_workers_are_asked_seldom() -> None:
    """Polling is fast while something moves and slow when nothing does; without pods there is none."""
    pods = (read(raw_pod()),)
    subject = runtime(status=plan(pods=pods).status)

    assert plan(subject, pods, {"demo-worker-0": report()}).requeue_after == reconcile.SETTLED
    assert plan(subject, pods, {"demo-worker-0": report()}, changing=True).requeue_after == reconcile.FAST
    building = {"demo-worker-0": report(state=IndexState.BUILDING)}
    assert plan(subject, pods, building).requeue_after == reconcile.FAST
    assert plan(runtime(replicas=0)).requeue_after is None


def test_pods_learn_of_a_new_access_secret() -> None:
    """The annotation makes the kubelet refresh the volume; a pod that has it is left alone."""
    patches = plan(pods=(read(raw_pod()),)).patches
    raw = raw_pod()
    raw["metadata"]["annotations"] = {"forebay.io/access-revision": "5"}

    assert [patch.ref.name for patch in patches] == ["demo-worker-0"]
    assert patches[0].body["metadata"]["annotations"] == {"forebay.io/access-revision": "5"}
    assert plan(pods=(read(raw),)).patches == ()


def test_without_a_dataset_no_worker_runs() -> None:
    """The cached bytes mean nothing then: the StatefulSet goes and nothing is made."""
    found = plan(dataset=None)

    assert found.apply == ()
    assert [ref.kind for ref in found.delete] == ["StatefulSet"]
    assert condition(found) == ("False", "NoDataset")


def test_deleted_runtime_is_left_to_the_garbage_collector() -> None:
    """All its objects are owned."""
    assert plan(runtime(deletionTimestamp="2026-01-01T00:00:00Z")) == Plan()


def test_tier_problem_is_said() -> None:
    """A tier that cannot hold its quota is the Runtime's reason."""
    problem = Problem(reason="QuotaExceedsDisk", message="lower the quota")
    found = plan(pods=(read(raw_pod()),), reports={"demo-worker-0": report(problem=problem)})

    assert condition(found) == ("False", "QuotaExceedsDisk")
    assert [event.reason for event in found.events] == ["QuotaExceedsDisk"]


def test_pod_that_fits_on_no_node() -> None:
    """The scheduler's message becomes a reason with advice."""
    unschedulable = {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/2 nodes are available: 2 Insufficient ephemeral-storage.",
    }  # fmt: skip
    found = plan(pods=(read(raw_pod([unschedulable], podIP="", containerStatuses=[])),))

    assert condition(found) == ("False", "QuotaExceedsDisk")


def test_image_that_cannot_be_pulled() -> None:
    """The kubelet's message is shown."""
    waiting = {"name": "worker", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    found = plan(pods=(read(raw_pod([{"type": "Ready", "status": "False"}], containerStatuses=[waiting])),))

    assert condition(found) == ("False", "ImageUnavailable")


def test_transition_times_stand_still() -> None:
    """The same facts a day later give the same status, so that nothing is written."""
    first = plan(pods=(read(raw_pod()),), reports={"demo-worker-0": report()})
    again = reconcile.plan_runtime(
        reconcile.Observed(
            runtime=runtime(status=first.status), dataset=DATASET, pods=(read(raw_pod()),),
            worker_set={"metadata": {}, "status": {"updatedReplicas": 1}}, reports={"demo-worker-0": report()},
            access_revision="5", image="image",
        ),
        datetime(2026, 1, 3, tzinfo=UTC),
    )  # fmt: skip

    assert again.status == first.status
    assert again.events == ()
