"""A DataLoad tells the truth about what is present, and judges once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from forebay_operator.model.dataload import DataLoad
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.runtime import Runtime
from forebay_operator.reconcile import dataload as reconcile
from forebay_operator.reconcile.plan import Plan
from forebay_protocol.control import LoadProgress, LoadState, Problem

NOW = datetime(2026, 1, 2, tzinfo=UTC)
META = {"name": "demo", "namespace": "ns", "uid": "u"}
DATASET = Dataset.read({"metadata": META, "spec": {"mounts": [{"name": "m", "source": "s3://bucket"}]}})
RUNTIME = Runtime.read({"metadata": META, "spec": {"replicas": 2, "tiers": [{"medium": "SSD", "quota": "1Gi"}]}})


def load(status: dict[str, Any] | None = None, **spec: Any) -> DataLoad:
    """A load of everything."""
    return DataLoad.read({"metadata": META, "spec": {"dataset": "demo", **spec}, "status": status or {}})


def progress(present: int, own: int = 500, state: LoadState = LoadState.RUNNING, **more: Any) -> LoadProgress:
    """One worker's share of 1000 bytes in 8 files."""
    return LoadProgress(
        state=state, generation=1, total_files=8, total_bytes=1000, own_bytes=own, present_bytes=present, **more
    )


def plan(reports: dict[str, LoadProgress], subject: DataLoad | None = None, **changes: Any) -> Plan:
    """The plan for these reports of workers a and b."""
    facts: dict[str, Any] = {
        "load": subject or load(), "dataset": DATASET, "runtime": RUNTIME, "members": ("a", "b"), "progress": reports,
    }  # fmt: skip
    return reconcile.plan_dataload(reconcile.Observed(**{**facts, **changes}), NOW)


def status(found: Plan) -> dict[str, Any]:
    """The status that the plan writes."""
    assert found.status is not None
    return found.status


def conditions(found: Plan) -> dict[str, tuple[str, str]]:
    """Status and reason by type."""
    return {c["type"]: (c["status"], c["reason"]) for c in status(found)["conditions"]}


def test_progress_adds_up_over_workers() -> None:
    """Bytes are those present; a file counts when no worker misses a part of it."""
    reports = {"a": progress(500, complete_files=b"\xff"), "b": progress(100, complete_files=b"\xc0")}
    sample = reconcile.Sample(at=NOW - timedelta(seconds=2), loaded_bytes=400)
    found = status(plan(reports, sample=sample))

    assert found["phase"] == "Loading"
    assert (found["loadedBytes"], found["percent"], found["loadedFiles"]) == (600, 60, 2)
    assert (found["bytesPerSecond"], found["etaSeconds"]) == (100, 4)
    assert (found["files"], found["loadedSize"]) == ("2/8", "600B")


def test_complete_needs_every_worker() -> None:
    """All present is not enough while a worker is silent."""
    done = progress(500, state=LoadState.COMPLETE)

    assert status(plan({"a": done}))["phase"] == "Loading"
    found = plan({"a": done, "b": done})
    assert conditions(found)["Complete"] == ("True", "Loaded")
    assert status(found)["percent"] == 100
    assert status(found)["completionTime"] == "2026-01-02T00:00:00Z"
    assert [event.reason for event in found.events] == ["Loaded"]


def test_no_judgement_while_workers_disagree() -> None:
    """During a ring change a part of the selection may be nobody's, or the listings differ: that is no failure."""
    done = progress(500, state=LoadState.COMPLETE)
    less = progress(300, own=300, state=LoadState.COMPLETE)
    older = replace(done, generation=0)

    assert status(plan({"a": done, "b": less}))["phase"] == "Loading"
    assert status(plan({"a": done, "b": older}))["phase"] == "Loading"


def test_evicted_bytes_fail_the_load() -> None:
    """Workers that are done while bytes are missing have no room: Failed, with advice."""
    found = plan({"a": progress(500, state=LoadState.COMPLETE), "b": progress(50, state=LoadState.COMPLETE)})

    assert conditions(found)["Failed"] == ("True", "CacheTooSmall")
    assert conditions(found)["Complete"][0] == "False"


def test_a_lower_threshold_is_enough() -> None:
    """With minCachedPercent the same is Complete."""
    reports = {"a": progress(500, state=LoadState.COMPLETE), "b": progress(50, state=LoadState.COMPLETE)}

    assert conditions(plan(reports, load(minCachedPercent=50)))["Complete"][0] == "True"


def test_failure_has_the_workers_reason() -> None:
    """What the workers could not do is said as they say it."""
    problem = Problem(reason="AccessDenied", message="refused")
    failed = progress(0, state=LoadState.FAILED, problems=(problem,))
    found = plan({"a": failed, "b": progress(500, state=LoadState.COMPLETE)})

    assert conditions(found)["Failed"] == ("True", "AccessDenied")


def test_replicated_bytes_count_once() -> None:
    """Where every worker owns all, the one that lags tells how much is loaded."""
    found = status(plan({"a": progress(1000, own=1000), "b": progress(200, own=1000)}))

    assert (found["loadedBytes"], found["percent"]) == (200, 20)


def test_replicated_bytes_are_complete_on_every_worker() -> None:
    """What one worker holds does not answer for one that is silent."""
    done = progress(1000, own=1000, state=LoadState.COMPLETE)

    assert status(plan({"a": done}))["phase"] == "Loading"
    assert conditions(plan({"a": done, "b": done}))["Complete"] == ("True", "Loaded")


def test_waits_for_the_listing() -> None:
    """Before the selection is known there are no figures, hence no 100 % of nothing."""
    unknown = LoadProgress(state=LoadState.PENDING)
    found = plan({"a": unknown, "b": unknown})

    assert conditions(found)["Progressing"] == ("Unknown", "Listing")
    assert "percent" not in status(found)


def test_obstacles_have_reasons() -> None:
    """Nothing to load from or with is said, and the load goes on by itself when that is mended."""
    for change, reason in (({"dataset": None}, "NoDataset"), ({"runtime": None}, "NoRuntime")):
        found = plan({}, **change)
        assert conditions(found)["Progressing"] == ("False", reason)
        assert found.requeue_after is not None


def test_finished_load_is_tidied_after_its_time() -> None:
    """The field ttlSecondsAfterFinished deletes it, not before; without it nothing happens."""
    finished = {"completionTime": "2026-01-01T23:59:00Z"}

    assert plan({}, load(finished)) == Plan()
    assert plan({}, load(finished, ttlSecondsAfterFinished=100)).requeue_after == 40
    assert [ref.kind for ref in plan({}, load(finished, ttlSecondsAfterFinished=10)).delete] == ["DataLoad"]
