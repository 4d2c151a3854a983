"""Decide what a Runtime needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from forebay_operator.desired import labels, worker_network
from forebay_operator.desired.worker_set import worker_set
from forebay_operator.model import conditions, meta, quantity
from forebay_operator.model.conditions import Verdict, fails, holds, unknown
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.runtime import Runtime, RuntimeStatus
from forebay_operator.reconcile import membership
from forebay_operator.reconcile.plan import Patch, Plan, Ref, RingOrder, transition
from forebay_operator.reconcile.pods import Trouble, WorkerPod
from forebay_protocol.control import IndexState, WorkerStatus
from forebay_protocol.ring import Ring
from forebay_protocol.shares import counted_readers

FAST = 1.0
"""Seconds until the next look while something is under way."""
SETTLED = 5.0
"""Seconds until the next look at workers that have nothing to do: what ails a store shows within 15 s, all included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was seen.

    ``refused``: what the API server said no to at the last look; ``changing``: the workers' figures moved since then;
    ``reading_nodes``: how many nodes have pods that use the Dataset's claim.
    """

    runtime: Runtime
    dataset: Dataset | None
    worker_set: dict[str, Any] | None
    pods: tuple[WorkerPod, ...]
    reports: Mapping[str, WorkerStatus]
    access_revision: str
    image: str
    refused: tuple[str, ...] = ()
    changing: bool = False
    reading_nodes: int = 0


def plan_runtime(seen: Observed, now: datetime) -> Plan:
    """All objects of a Runtime that has its Dataset; without one, no worker runs."""
    if seen.runtime.deleting:
        # All its objects are owned, so that the garbage collector takes them; readers go to the source.
        return Plan()
    dataset = seen.dataset
    pods = tuple(pod for pod in seen.pods if dataset is not None and pod.dataset_uid == dataset.metadata.uid)
    ring = membership.wanted(seen.runtime, pods, seen.reports, now, _readers(seen))
    verdicts = _verdicts(seen, pods, ring)
    status = _status(seen, pods, ring, verdicts, now)
    behind = tuple(
        member for member in ring.members if member.id not in seen.reports or seen.reports[member.id].epoch < ring.epoch
    )
    settled = verdicts[-1].true or (not seen.pods and seen.runtime.spec.replicas == 0)
    listed = all(report.index.state == IndexState.READY for report in seen.reports.values())
    return Plan(
        apply=_objects(seen),
        patches=_refresh_access(seen, pods),
        delete=_orphaned(seen),
        status=status.to_json(),
        ring=RingOrder(ring=ring, behind=behind) if behind else None,
        events=transition(seen.runtime.status.conditions or (), verdicts[-1]),
        requeue_after=_next_look(seen, idle=settled and listed),
    )


def _readers(seen: Observed) -> int:
    """What the ring tells of reading nodes: nothing where nobody divides anything by it."""
    limited = seen.dataset is not None and seen.dataset.limited
    return counted_readers(seen.reading_nodes) if limited else 0


def _next_look(seen: Observed, *, idle: bool) -> float | None:
    if not seen.pods:
        return None
    return SETTLED if idle and not seen.changing else FAST


def _objects(seen: Observed) -> tuple[dict[str, Any], ...]:
    if seen.dataset is None:
        return ()
    runtime = seen.runtime
    own_account = () if runtime.spec.service_account_name else (worker_network.service_account(runtime),)
    return (
        *own_account,
        worker_network.service(runtime),
        worker_network.network_policy(runtime),
        worker_network.disruption_budget(runtime),
        worker_set(runtime, seen.dataset, seen.image),
    )


def _orphaned(seen: Observed) -> tuple[Ref, ...]:
    """Without the Dataset the cached bytes mean nothing: the workers go, and their folders with them."""
    if seen.dataset is not None or seen.worker_set is None:
        return ()
    metadata = seen.worker_set["metadata"]
    return (Ref("StatefulSet", metadata["namespace"], metadata["name"]),)


def _refresh_access(seen: Observed, pods: tuple[WorkerPod, ...]) -> tuple[Patch, ...]:
    return tuple(
        Patch(
            Ref("Pod", seen.runtime.metadata.namespace, pod.name),
            {
                "metadata": {
                    "uid": pod.uid,
                    "annotations": {meta.ANNOTATION_ACCESS_REVISION: seen.access_revision},
                }
            },
        )
        for pod in pods
        if seen.access_revision and pod.access_revision != seen.access_revision and not pod.deleting
    )


def _verdicts(seen: Observed, pods: tuple[WorkerPod, ...], ring: Ring) -> tuple[Verdict, ...]:
    bound = _bound(seen)
    workers = _workers(seen, pods, ring)
    tiers = _tiers(seen)
    blocking = next((v for v in (bound, tiers, workers) if v.status == "False"), None)
    blocking = blocking or next((v for v in (workers, tiers) if not v.true), None)
    if blocking is not None:
        ready = Verdict(conditions.READY, blocking.status, blocking.reason, blocking.message)
    else:
        ready = holds(conditions.READY, workers.reason, workers.message)
    return (bound, workers, tiers, ready)


def _bound(seen: Observed) -> Verdict:
    name = seen.runtime.metadata.name
    if seen.dataset is None:
        message = f"no Dataset {name} in this namespace: create one of the Runtime's name"
        return fails(conditions.BOUND, "NoDataset", message)
    return holds(conditions.BOUND, "DatasetFound", f"caches Dataset {name}")


def _workers(seen: Observed, pods: tuple[WorkerPod, ...], ring: Ring) -> Verdict:
    kind, wanted = conditions.WORKERS_READY, seen.runtime.spec.replicas
    if seen.refused:
        return fails(kind, "Refused", "; ".join(seen.refused))
    serving = [
        pod
        for pod in pods
        if pod.ready
        and not pod.deleting
        and pod.ordinal < wanted
        and pod.name in seen.reports
        and seen.reports[pod.name].epoch >= ring.epoch
    ]
    trouble = _worst(pods)
    if trouble is not None:
        return fails(kind, trouble.reason, trouble.message)
    set_status = (seen.worker_set or {}).get("status", {})
    if len(serving) < wanted or set_status.get("updatedReplicas", 0) < wanted:
        return fails(kind, "WorkersNotReady", _progress(seen, pods, len(serving)))
    if len(pods) > wanted:
        # Those who stay serve: nothing is wrong while the others leave.
        return holds(kind, "ScalingIn", f"{wanted} of {wanted} workers serve, {len(pods) - wanted} more leave")
    return holds(kind, "WorkersReady", f"{wanted} of {wanted} workers serve" if wanted else "no workers are wanted")


def _progress(seen: Observed, pods: tuple[WorkerPod, ...], serving: int) -> str:
    wanted = seen.runtime.spec.replicas
    message = f"{serving} of {wanted} workers serve, {len(pods)} pods exist"
    if seen.runtime.spec.uses_node_folders and pods and not any(pod.running for pod in pods):
        message += "; hostPath tiers want their path below a --tier-root of the node plugin"
    return message


def _worst(pods: tuple[WorkerPod, ...]) -> Trouble | None:
    return next((pod.trouble for pod in pods if pod.trouble and not pod.deleting), None)


def _tiers(seen: Observed) -> Verdict:
    kind = conditions.TIERS_READY
    for worker, report in sorted(seen.reports.items()):
        for tier in report.tiers:
            if tier.problem is not None:
                return fails(kind, tier.problem.reason, f"{tier.medium} tier of {worker}: {tier.problem.message}")
    if not seen.reports:
        if seen.runtime.spec.replicas == 0:
            return holds(kind, "NoWorkers", "no workers are wanted")
        return unknown(kind, "WorkersNotReady", "no worker has reported yet")
    return holds(kind, "TiersReady", "all tiers can hold their quota")


def _phase(verdicts: tuple[Verdict, ...]) -> str:
    ready = verdicts[-1]
    if ready.true:
        return "Ready"
    return "Pending" if ready.reason in ("WorkersNotReady", "NoDataset") else "Failed"


def _status(
    seen: Observed, pods: tuple[WorkerPod, ...], ring: Ring, verdicts: tuple[Verdict, ...], now: datetime
) -> RuntimeStatus:
    runtime = seen.runtime
    capacity = sum(tier.capacity_bytes for report in seen.reports.values() for tier in report.tiers)
    held = sum(report.held_bytes for report in seen.reports.values())
    former = runtime.status.conditions or ()
    return RuntimeStatus(
        observed_generation=runtime.metadata.generation,
        phase=_phase(verdicts),
        replicas=len(seen.pods),
        ready_replicas=sum(pod.ready and not pod.deleting for pod in pods),
        selector=labels.selector_text(labels.worker_selector(runtime.metadata.name)),
        ring_epoch=ring.epoch,
        layout=ring.layout.value,
        readers=ring.readers or None,
        cache_capacity_bytes=capacity,
        cache_capacity=quantity.human(capacity),
        held_bytes=held,
        held_size=quantity.human(held),
        workers=tuple(membership.row(member, seen.reports.get(member.id)) for member in ring.members),
        conditions=conditions.merge(former, verdicts, runtime.metadata.generation, now),
    )
