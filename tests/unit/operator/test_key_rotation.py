"""A key is replaced in steps, none of which shuts anybody out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from forebay_operator.model.keys import KeySet, Phase
from forebay_operator.reconcile.key_rotation import GRACE, KEY_AGE, Situation, Step, next_step
from forebay_protocol.auth import key_id
from forebay_protocol.control import IndexState, IndexStatus, WorkerStatus

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OLD, NEW = "old" * 20, "new" * 20
BOTH = (key_id(OLD.encode()), key_id(NEW.encode()))


def report(*keys: str) -> WorkerStatus:
    """What a worker says that knows these keys."""
    return WorkerStatus(
        id="w", epoch=1, dataset_revision="", index=IndexStatus(state=IndexState.READY), tiers=(), cached_bytes=0,
        held_bytes=0, window_hit_bytes=0, window_miss_bytes=0, origin_bytes=0, peer_bytes=0, corrupt_chunks=0,
        keys=keys,
    )  # fmt: skip


def seen(held: KeySet | None, **changes: object) -> Situation:
    """Two workers that know both keys; no wish."""
    reports = {name: report(*BOTH) for name in ("w0", "w1")}
    plain = Situation(held=held, fresh=NEW, request="", workers=("w0", "w1"), reports=reports)
    return replace(plain, **changes)  # type: ignore[arg-type]


def settled(**changes: object) -> KeySet:
    """One key, since now."""
    return replace(KeySet(keys=(OLD,), since=NOW), **changes)  # type: ignore[arg-type]


def announced() -> KeySet:
    """The new key is told."""
    return next_step(seen(settled(), request="now"), NOW).keys


def test_a_dataset_gets_one_key() -> None:
    """The annotation that it was created with is no wish for another."""
    first = next_step(seen(None, request="at creation"), NOW).keys

    assert (first.keys, first.phase) == ((NEW,), Phase.SETTLED)
    assert next_step(seen(first, request="at creation"), NOW) == Step(first)


@pytest.mark.parametrize(("later", "wish"), [(timedelta(0), "again"), (KEY_AGE, "")])
def test_a_wish_or_age_announces_a_key(later: timedelta, wish: str) -> None:
    """The old key goes on signing, and nothing more happens for the same wish."""
    step = next_step(seen(settled(), request=wish), NOW + later)

    assert (step.keys.keys, step.keys.phase) == ((OLD, NEW), Phase.ANNOUNCED)
    assert next_step(seen(settled(request=wish), request=wish), NOW).keys.phase is Phase.SETTLED


def test_nobody_signs_with_a_key_that_a_worker_does_not_know() -> None:
    """One that is silent, or has not read it yet, holds the rotation up; one without workers needs none."""
    told = announced()
    knows_old = report(BOTH[0])

    for reports in ({}, {"w0": report(*BOTH)}, {"w0": report(*BOTH), "w1": knows_old}):
        assert next_step(seen(told, reports=reports), NOW) == Step(told)
    for situation in (seen(told), seen(told, workers=(), reports={})):
        step = next_step(situation, NOW)
        assert (step.keys.keys, step.keys.phase) == ((NEW, OLD), Phase.PROMOTED)
        assert [event.reason for event in step.events] == ["KeyRotated"]
        assert step.requeue_after == GRACE.total_seconds()


def test_the_old_key_goes_after_the_grace() -> None:
    """Not a second before; then all is as at the beginning, and the next wish is heard."""
    promoted = next_step(seen(announced()), NOW).keys

    early = next_step(seen(promoted), NOW + GRACE - timedelta(seconds=5))
    assert early == Step(promoted, requeue_after=5.0)
    late = next_step(seen(promoted), NOW + GRACE)
    assert (late.keys.keys, late.keys.phase) == ((NEW,), Phase.SETTLED)
    assert next_step(seen(late.keys, request="now"), NOW + GRACE).keys == late.keys
    assert next_step(seen(late.keys, request="more", fresh="x"), NOW + GRACE).keys.phase is Phase.ANNOUNCED


def test_keys_are_read_back() -> None:
    """From the Secret's key file and annotation; a Secret of before, or a torn note, is one settled key."""
    told = announced()

    assert KeySet.read(told.file, told.note, NOW) == told
    assert told.newest_id == BOTH[1]
    for note in ("", "{}", "[]", told.note.replace("Announced", "Nothing"), settled().note):
        assert KeySet.read(told.file, note, NOW) == KeySet(keys=(OLD,), since=NOW)
    assert OLD not in repr(told) + told.note
