"""Decide what a DataLoad needs: which workers to tell, and how far they are together."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from forebay_operator.model import conditions, quantity
from forebay_operator.model.conditions import Verdict, fails, holds, unknown
from forebay_operator.model.dataload import DataLoad, DataLoadStatus
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.runtime import Runtime
from forebay_operator.reconcile.plan import Plan, Ref, transition
from forebay_protocol.control import LoadProgress, LoadRequest, LoadState, loaded_files

POLL = 1.0
_WAITING = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How many bytes were present at a look before."""

    at: datetime
    loaded_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was seen. ``progress`` has an entry for each ring member that answered, ``members`` all active ones."""

    load: DataLoad
    dataset: Dataset | None
    runtime: Runtime | None
    members: tuple[str, ...]
    progress: Mapping[str, LoadProgress]
    sample: Sample | None = None


def request(load: DataLoad) -> LoadRequest:
    """What each worker is asked to do."""
    return LoadRequest(paths=tuple(target.path for target in load.spec.targets or ()))


def plan_dataload(seen: Observed, now: datetime) -> Plan:
    """Judge the progress; a finished load is never judged again, only tidied away."""
    load = seen.load
    if load.deleting:
        return Plan()
    if load.finished:
        return _tidy(load, now)
    verdict = _verdict(seen)
    status = _status(seen, verdict, now)
    former = load.status.conditions or ()
    done = verdict.type in (conditions.COMPLETE, conditions.FAILED)
    return Plan(
        status=status,
        events=transition(former, verdict) if done or verdict.status == "False" else (),
        requeue_after=POLL if done or seen.progress else _WAITING,
    )


def _tidy(load: DataLoad, now: datetime) -> Plan:
    ttl, finished = load.spec.ttl_seconds_after_finished, load.status.completion_time
    if ttl is None or finished is None:
        return Plan()
    left = ttl - (now - datetime.fromisoformat(finished)).total_seconds()
    if left > 0:
        return Plan(requeue_after=left)
    return Plan(delete=(Ref("DataLoad", load.metadata.namespace, load.metadata.name),))


def _obstacle(seen: Observed) -> Verdict | None:
    """Why no worker can load; None when nothing stands in the way."""
    kind, name = conditions.PROGRESSING, seen.load.spec.dataset
    if seen.dataset is None or seen.dataset.deleting:
        return fails(kind, "NoDataset", f"no Dataset {name} in this namespace: create it, or delete this DataLoad")
    if seen.runtime is None or seen.runtime.deleting:
        return fails(kind, "NoRuntime", f"no Runtime {name} in this namespace: create it")
    if seen.runtime.spec.replicas == 0:
        return fails(kind, "NoWorkers", "the Runtime has 0 replicas: scale it up")
    if not seen.members or not seen.progress:
        return unknown(kind, "WorkersNotReady", "no worker can be told to load yet")
    return None


def _verdict(seen: Observed) -> Verdict:
    """One of Progressing (True, False or Unknown), Complete and Failed."""
    obstacle, kind = _obstacle(seen), conditions.PROGRESSING
    if obstacle is not None:
        return obstacle
    reports = list(seen.progress.values())
    problem = next((problem for report in reports for problem in report.problems), None)
    if all(report.generation == 0 for report in reports):
        return unknown(kind, "Listing", "the workers wait for the listing of the sources")
    if len(reports) < len(seen.members):
        return holds(kind, "Loading", f"{len(reports)} of {len(seen.members)} workers answer")
    if any(report.state in (LoadState.PENDING, LoadState.RUNNING) for report in reports):
        return holds(kind, "Loading", f"last problem: {problem.message}" if problem else "the workers are loading")
    if not _agree(reports):
        return holds(kind, "Loading", "the workers are agreeing on who loads what")
    return _end(seen, reports)


def _agree(reports: list[LoadProgress]) -> bool:
    """Whether the workers speak of one selection and leave none of it to nobody, as they may during a ring change."""
    total = max(report.total_bytes for report in reports)
    one = len({(report.generation, report.total_files) for report in reports}) == 1
    return one and sum(report.own_bytes for report in reports) >= total


def _end(seen: Observed, reports: list[LoadProgress]) -> Verdict:
    wanted, percent = seen.load.spec.min_cached_percent, _percent(reports)
    problem = next((problem for report in reports for problem in report.problems), None)
    if percent >= wanted:
        return holds(conditions.COMPLETE, "Loaded", f"{percent} % of the selected bytes are present and verified")
    if problem is not None:
        message = f"{percent} % instead of {wanted} % could be loaded: {problem.message}"
        return holds(conditions.FAILED, problem.reason, message)
    message = (
        f"{percent} % instead of {wanted} % are present although the workers are done: the cache is too small; raise "
        "the tiers' quotas or the replicas, or lower minCachedPercent"
    )
    return holds(conditions.FAILED, "CacheTooSmall", message)


def _percent(reports: list[LoadProgress]) -> int:
    own = sum(report.own_bytes for report in reports)
    if own == 0:
        # Nothing to load is done only for those who know the selection.
        return 100 if all(report.state == LoadState.COMPLETE for report in reports) else 0
    total = max(report.total_bytes for report in reports)
    return min(100, _loaded_bytes(reports, total) * 100 // max(total, 1))


def _loaded_bytes(reports: list[LoadProgress], total: int) -> int:
    """Present bytes of the selection, each counted once: where every worker holds all, the one that lags tells."""
    own = sum(report.own_bytes for report in reports)
    if own > total:
        return min((report.present_bytes for report in reports), default=0)
    return sum(report.present_bytes for report in reports)


def loaded(seen: Observed) -> int:
    """Present bytes of the selection now."""
    reports = list(seen.progress.values())
    return _loaded_bytes(reports, max((report.total_bytes for report in reports), default=0))


def _finality(verdict: Verdict) -> list[Verdict]:
    """All conditions that follow from the one."""
    if verdict.type == conditions.COMPLETE:
        return [verdict, fails(conditions.PROGRESSING, "Finished", verdict.message)]
    if verdict.type == conditions.FAILED:
        return [
            fails(conditions.COMPLETE, verdict.reason, verdict.message),
            verdict,
            fails(conditions.PROGRESSING, "Finished", verdict.message),
        ]
    return [verdict]


_PHASES = {conditions.COMPLETE: "Complete", conditions.FAILED: "Failed"}


def _status(seen: Observed, verdict: Verdict, now: datetime) -> dict[str, Any]:
    load, former, reports = seen.load, seen.load.status, list(seen.progress.values())
    done = verdict.type in _PHASES
    figures: dict[str, Any] = {}
    if any(report.generation for report in reports):
        figures = _figures(seen, reports, done=done, now=now)
    started = former.start_time or (conditions.timestamp(now) if figures else None)
    base = former.model_dump(exclude={"rate", "eta", "bytes_per_second", "eta_seconds"})
    return DataLoadStatus(
        **{
            **base,
            **figures,
            "observed_generation": load.metadata.generation,
            "phase": _PHASES.get(verdict.type, "Loading" if verdict.true else "Pending"),
            "start_time": started,
            "completion_time": conditions.timestamp(now) if done else None,
            "conditions": conditions.merge(former.conditions or (), _finality(verdict), load.metadata.generation, now),
        }
    ).to_json()


def _figures(seen: Observed, reports: list[LoadProgress], *, done: bool, now: datetime) -> dict[str, Any]:
    total_files = max(report.total_files for report in reports)
    total_bytes = max(report.total_bytes for report in reports)
    present, files = loaded(seen), loaded_files(tuple(reports))
    rate = _rate(seen, present, done=done, now=now)
    eta = (total_bytes - present) // rate if rate and not done else None
    return {
        "generation": max(report.generation for report in reports),
        "total_files": total_files,
        "total_bytes": total_bytes,
        "total_size": quantity.human(total_bytes),
        "loaded_files": files,
        "loaded_bytes": present,
        "loaded_size": quantity.human(present),
        "failed_files": sum(report.failed_files for report in reports),
        "files": f"{files}/{total_files}",
        "percent": _percent(reports),
        "bytes_per_second": rate,
        "rate": f"{quantity.human(rate)}/s" if rate is not None else None,
        "eta_seconds": eta,
        "eta": quantity.human_seconds(eta) if eta is not None else None,
    }


def _rate(seen: Observed, present: int, *, done: bool, now: datetime) -> int | None:
    """Bytes per second since the last look; over the whole load once it is done."""
    started = seen.load.status.start_time
    if done and started is not None:
        seconds = max(1.0, (now - datetime.fromisoformat(started)).total_seconds())
        return int(present / seconds)
    if seen.sample is None or now <= seen.sample.at:
        return None
    return max(0, int((present - seen.sample.loaded_bytes) / (now - seen.sample.at).total_seconds()))
