"""Replace the key that signs a Dataset's tokens while everybody works on.

Three steps, each taken when nobody can be hurt by it: the new key is announced, so that all workers accept it; it is
promoted once each of them says so; the old one is retired when mounts have had a day to ask for the new one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from forebay_operator.model.keys import KeySet, Phase
from forebay_operator.reconcile.plan import Event
from forebay_protocol.control import WorkerStatus

KEY_AGE = timedelta(days=30)
"""How long a key signs before it is replaced unasked."""

GRACE = timedelta(days=1)
"""How long the old key is accepted after the new one signs: mounts ask every 30 s, tokens live for an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the decision looks at.

    ``held``: the keys of the Secret, None where there is none; ``fresh``: a new random key; ``request``: the wish of
    the Dataset's annotation; ``workers``: names of the pods that run.
    """

    held: KeySet | None
    fresh: str
    request: str
    workers: tuple[str, ...]
    reports: Mapping[str, WorkerStatus]


@dataclass(frozen=True, slots=True)
class Step:
    """The keys to hold from now on, what people should hear, and when to look again."""

    keys: KeySet
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None


def next_step(seen: Situation, now: datetime) -> Step:
    """At most one step on."""
    now = now.replace(microsecond=0)
    held = seen.held
    if held is None:
        return Step(KeySet(keys=(seen.fresh,), since=now, request=seen.request))
    match held.phase:
        case Phase.SETTLED:
            return _announce(held, seen, now)
        case Phase.ANNOUNCED:
            return _promote(held, seen, now)
        case Phase.PROMOTED:
            return _retire(held, now)


def _announce(held: KeySet, seen: Situation, now: datetime) -> Step:
    wished = seen.request not in {"", held.request}
    if not wished and now - held.since < KEY_AGE:
        return Step(held)
    request = seen.request or held.request
    return Step(KeySet(keys=(*held.keys, seen.fresh), phase=Phase.ANNOUNCED, since=now, request=request))


def _promote(held: KeySet, seen: Situation, now: datetime) -> Step:
    def knows(worker: str) -> bool:
        return worker in seen.reports and held.newest_id in seen.reports[worker].keys

    if not all(knows(worker) for worker in seen.workers):
        return Step(held)
    old, new = held.keys
    message = f"a new key signs tokens from now on; the old one is accepted for {GRACE.total_seconds() / 3600:.0f} h"
    keys = KeySet(keys=(new, old), phase=Phase.PROMOTED, since=now, request=held.request)
    return Step(keys, (Event("Normal", "KeyRotated", message),), GRACE.total_seconds())


def _retire(held: KeySet, now: datetime) -> Step:
    left = GRACE - (now - held.since)
    if left > timedelta(0):
        return Step(held, requeue_after=left.total_seconds())
    # The key's age counts from the day on which it began to sign.
    keys = KeySet(keys=held.keys[:1], since=held.since, request=held.request)
    return Step(keys, (Event("Normal", "KeyRetired", "the old key is not accepted any more"),))
