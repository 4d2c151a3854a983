"""Decide what a Dataset needs: its access Secret, its volume, and what its status says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from forebay_operator.desired.access import access_secret
from forebay_operator.desired.tls import tls_secrets
from forebay_operator.desired.volume import persistent_volume, persistent_volume_claim
from forebay_operator.model import conditions, meta, quantity
from forebay_operator.model.certificates import Certificates
from forebay_operator.model.conditions import Verdict, fails, holds, unknown
from forebay_operator.model.dataset import Dataset, DatasetStatus, MountStatus
from forebay_operator.model.keys import KeySet
from forebay_operator.model.runtime import Runtime
from forebay_operator.reconcile import dataset_deletion, key_rotation
from forebay_operator.reconcile.plan import Patch, Plan, Ref, transition
from forebay_protocol.control import IndexState, Problem, WorkerStatus
from forebay_protocol.dataset import Credentials
from forebay_protocol.shares import counted_readers

_SOURCE_REASONS = {
    "SecretNotFound", "InvalidSecret", "InvalidCredentials", "EndpointUnreachable", "AccessDenied", "NoSuchBucket",
    "InvalidResponse", "InvalidRequest", "IndexNotWritten", "SourceError",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was seen.

    ``secret_problems``: per mount whose Secret is missing or lacks keys; ``keys``: those of the access Secret, if
    there is one; ``fresh_key``, ``fresh_data_key``: random, to be used when one is wanted; ``pods``: names of
    unfinished pods that use the claim; ``workers``: names of the worker pods that run; ``certificates``: theirs, if
    they speak TLS; ``reading_nodes``: how many nodes ``pods`` run on.
    """

    dataset: Dataset
    runtime: Runtime | None
    credentials: Mapping[str, Credentials]
    secret_problems: tuple[Problem, ...]
    keys: KeySet | None
    fresh_key: str = field(repr=False)
    data_key: str = field(default="", repr=False)
    fresh_data_key: str = field(default="", repr=False)
    claim: dict[str, Any] | None
    volume: dict[str, Any] | None
    pods: tuple[str, ...]
    reports: Mapping[str, WorkerStatus]
    workers: tuple[str, ...] = ()
    certificates: Certificates | None = None
    reading_nodes: int = 0


def plan_dataset(seen: Observed, now: datetime) -> Plan:
    """All objects of a Dataset, or their orderly end."""
    dataset = seen.dataset
    if dataset.deleting:
        return dataset_deletion.plan_deletion(dataset, seen.claim, seen.volume, seen.pods, now)
    taken = _taken(seen)
    volume = () if taken else _volume_objects(seen)
    verdicts = _verdicts(seen)
    status = _status(seen, verdicts, now)
    situation = key_rotation.Situation(
        held=seen.keys, fresh=seen.fresh_key, workers=seen.workers, reports=seen.reports,
        request=dataset.metadata.annotations.get(meta.ANNOTATION_ROTATE_KEY, ""),
    )  # fmt: skip
    rotation = key_rotation.next_step(situation, now)
    return Plan(
        hold=not dataset.held,
        apply=(*_secrets(seen, rotation.keys), *volume),
        patches=() if taken else _rebind(seen),
        status=status.to_json(),
        events=(*transition(dataset.status.conditions or (), verdicts[-1]), *rotation.events),
        requeue_after=rotation.requeue_after,
    )


def _secrets(seen: Observed, keys: KeySet) -> tuple[dict[str, Any], ...]:
    """The certificates before what makes clients expect them."""
    dataset, made = seen.dataset, seen.certificates
    authority = made.authority.certificate if made else ""
    readers = counted_readers(seen.reading_nodes)
    wanted = seen.runtime is not None and seen.runtime.spec.needs_data_key
    data_key = seen.data_key or (seen.fresh_data_key if wanted else "")
    access = access_secret(
        dataset, dict(seen.credentials), keys, authority=authority, readers=readers, data_key=data_key
    )
    return (*(tls_secrets(dataset, made) if made else ()), access)


def _volume_objects(seen: Observed) -> tuple[dict[str, Any], ...]:
    """The volume, and the claim once Kubernetes has looked at the volume.

    A claim that comes before its volume is not bound until the volume controller's next round, 15 s later.
    """
    volume = persistent_volume(seen.dataset)
    looked_at = (seen.volume or {}).get("status", {}).get("phase") in ("Available", "Bound", "Released")
    if seen.claim is None and not looked_at:
        return (volume,)
    return (volume, persistent_volume_claim(seen.dataset))


def _taken(seen: Observed) -> bool:
    """Whether a claim of the Dataset's name belongs to someone else."""
    if seen.claim is None:
        return False
    owners = seen.claim["metadata"].get("ownerReferences", ())
    return all(owner["uid"] != seen.dataset.metadata.uid for owner in owners)


def _rebind(seen: Observed) -> tuple[Patch, ...]:
    """A volume whose claim was deleted and made again still names the old claim's UID: let it bind anew."""
    if seen.volume is None or seen.volume.get("status", {}).get("phase") != "Released":
        return ()
    reference = Ref("PersistentVolume", "", seen.volume["metadata"]["name"])
    return (Patch(reference, {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}}),)


def _verdicts(seen: Observed) -> tuple[Verdict, ...]:
    bound, source, volume = _bound(seen), _source(seen), _volume(seen)
    # The cause first: a missing Secret explains everything behind it.
    blocking = next((v for v in (source, volume, bound) if v.status == "False"), None)
    if blocking is None:
        blocking = _workers(seen) or next((v for v in (source, volume) if not v.true), None)
    if blocking is not None:
        ready = Verdict(conditions.READY, blocking.status, blocking.reason, blocking.message)
    else:
        ready = holds(conditions.READY, "DatasetReady", f"mount the PersistentVolumeClaim {seen.dataset.metadata.name}")
    return (bound, source, volume, ready)


def _bound(seen: Observed) -> Verdict:
    name = seen.dataset.metadata.name
    if seen.runtime is None or seen.runtime.deleting:
        message = f"no Runtime {name} in this namespace: create one of the Dataset's name"
        return fails(conditions.BOUND, "NoRuntime", message)
    return holds(conditions.BOUND, "RuntimeFound", f"Runtime {name} caches the Dataset")


def _workers(seen: Observed) -> Verdict | None:
    """What keeps the workers from serving the Dataset; None when nothing does."""
    assert seen.runtime is not None
    if seen.runtime.spec.replicas == 0:
        message = "the Runtime has 0 replicas, so pods read from the source: kubectl scale runtime to cache"
        return fails(conditions.READY, "NoWorkers", message)
    ready = next((c for c in seen.runtime.status.conditions or () if c.type == conditions.READY), None)
    if not seen.reports:
        message = f"no worker answers yet: {ready.message}" if ready else "no worker answers yet"
        reason = ready.reason if ready and ready.status == "False" else "WorkersNotReady"
        return fails(conditions.READY, reason, message)
    return None


def _volume(seen: Observed) -> Verdict:
    kind, name = conditions.VOLUME_READY, seen.dataset.metadata.name
    if _taken(seen):
        message = f"a PersistentVolumeClaim {name} exists already: delete it, or give the Dataset another name"
        return fails(kind, "NameTaken", message)
    phase = (seen.claim or {}).get("status", {}).get("phase")
    if phase != "Bound":
        return unknown(kind, "ClaimPending", f"the PersistentVolumeClaim {name} is not bound yet")
    return holds(kind, "ClaimBound", f"the PersistentVolumeClaim {name} is bound")


def _problems(seen: Observed) -> tuple[Problem, ...]:
    """What is wrong with the sources, the cause before its consequences, each once."""
    revision = seen.dataset.document().revision()
    found = list(seen.secret_problems)
    for _, report in sorted(seen.reports.items()):
        if report.dataset_revision == revision:
            found += [p for p in (*report.index.problems, *report.problems) if p.reason in _SOURCE_REASONS]
    first: dict[str, Problem] = {}
    for problem in found:
        first.setdefault(problem.mount, problem)
    return tuple(first.values())


def _source(seen: Observed) -> Verdict:
    kind = conditions.SOURCE_REACHABLE
    problems = _problems(seen)
    if problems:
        worst = problems[0]
        where = f"mount {worst.mount}: " if worst.mount else ""
        return fails(kind, worst.reason, f"{where}{worst.message}")
    revision = seen.dataset.document().revision()
    current = [report for report in seen.reports.values() if report.dataset_revision == revision]
    if any(report.index.state == IndexState.READY for report in current):
        return holds(kind, "Listed", "the sources were listed")
    failed = next((report for report in current if report.index.state == IndexState.FAILED), None)
    if failed is not None:
        message = "; ".join(problem.message for problem in failed.index.problems) or "the workers say no more"
        return fails(kind, "ListingFailed", f"the sources could not be listed: {message}")
    if not seen.reports:
        return unknown(kind, "NotLooked", "no worker has looked at the sources yet")
    return unknown(kind, "Listing", "the workers are listing the sources")


def _phase(verdicts: tuple[Verdict, ...]) -> str:
    bound, source, volume, ready = verdicts
    if ready.true:
        return "Ready"
    if source.status == "False" or volume.status == "False":
        return "Failed"
    return "Pending" if bound.true else "NotBound"


def _status(seen: Observed, verdicts: tuple[Verdict, ...], now: datetime) -> DatasetStatus:
    dataset, former = seen.dataset, seen.dataset.status
    problems = {problem.mount: problem.reason for problem in _problems(seen)}
    cached = sum(report.cached_bytes for report in seen.reports.values())
    capacity = _capacity(seen)
    hits = sum(report.window_hit_bytes for report in seen.reports.values())
    read = hits + sum(report.window_miss_bytes for report in seen.reports.values())
    index = _index(seen)
    return DatasetStatus(
        observed_generation=dataset.metadata.generation,
        phase=_phase(verdicts),
        **index,
        cached_bytes=cached,
        cached_size=quantity.human(cached),
        cached_percent=_percent(cached, index.get("total_bytes")),
        cache_capacity_bytes=capacity,
        cache_capacity=quantity.human(capacity),
        hit_ratio=hits * 100 // read if read else None,
        bound_runtime=seen.runtime.metadata.name if verdicts[0].true and seen.runtime else None,
        mounts=tuple(
            MountStatus(
                name=mount.name, source=mount.source, path=mount.effective_path,
                problem=problems.get(mount.name, problems.get("")),
            )
            for mount in dataset.spec.mounts
        ),
        conditions=conditions.merge(former.conditions or (), verdicts, dataset.metadata.generation, now),
    )  # fmt: skip


def _percent(cached: int, total: int | None) -> int | None:
    if total is None:
        return None
    return min(100, cached * 100 // total) if total else 100


def _capacity(seen: Observed) -> int:
    rooms = [sum(tier.capacity_bytes for tier in report.tiers) for report in seen.reports.values()]
    if seen.runtime is not None and seen.runtime.spec.layout == "Replicated":
        return min(rooms, default=0)
    return sum(rooms)


def _index(seen: Observed) -> dict[str, Any]:
    """The newest index that a worker reports; what was known before while none does."""
    former = seen.dataset.status
    newest = max((report.index for report in seen.reports.values()), key=lambda index: index.generation, default=None)
    if newest is None or newest.generation == 0:
        return {
            "total_bytes": former.total_bytes, "total_size": former.total_size, "file_count": former.file_count,
            "generation": former.generation, "indexed_at": former.indexed_at,
        }  # fmt: skip
    same = newest.generation == former.generation and former.indexed_at is not None
    built = conditions.timestamp(datetime.fromtimestamp(newest.built_at, UTC))
    return {
        "total_bytes": newest.total_bytes,
        "total_size": quantity.human(newest.total_bytes),
        "file_count": newest.file_count,
        "generation": newest.generation,
        # A listing that found nothing new is no news: the status stands still.
        "indexed_at": former.indexed_at if same else built,
    }
