"""What a look at the world asks for. Executing a plan twice changes nothing the second time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from forebay_operator.model.conditions import Condition, Verdict
from forebay_protocol.ring import Member, Ring


class Ref(NamedTuple):
    """An object of the cluster; ``namespace`` is empty for cluster-scoped ones."""

    kind: str
    namespace: str
    name: str


class Event(NamedTuple):
    """Something that people should hear of."""

    type: str
    reason: str
    message: str


class Patch(NamedTuple):
    """A merge patch of an object that is not ours to apply as a whole."""

    ref: Ref
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RingOrder:
    """A ring and the members that have not confirmed it."""

    ring: Ring
    behind: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Writes in the order in which they are made, and when to look again.

    ``hold`` adds our finalizer before anything else, ``release`` removes it after everything else; ``status`` is
    the whole status (None leaves it alone); ``ring`` is sent after the status was written, which is its record.
    """

    hold: bool = False
    apply: tuple[dict[str, Any], ...] = ()
    patches: tuple[Patch, ...] = ()
    delete: tuple[Ref, ...] = ()
    status: dict[str, Any] | None = None
    ring: RingOrder | None = None
    events: tuple[Event, ...] = ()
    release: bool = False
    requeue_after: float | None = None


_AT_FIRST = {"NoDataset", "NoRuntime", "NoWorkers", "WorkersNotReady"}
"""Reasons that are no news in the first moment of an object's life: what belongs together is rarely created at once."""


def transition(former: Sequence[Condition], verdict: Verdict) -> tuple[Event, ...]:
    """The event for a condition that has changed in status or reason; none while things are only coming up."""
    old = next((condition for condition in former if condition.type == verdict.type), None)
    if old is not None and (old.status, old.reason) == (verdict.status, verdict.reason):
        return ()
    if verdict.status == "Unknown" or (old is None and verdict.reason in _AT_FIRST):
        return ()
    return (Event("Normal" if verdict.true else "Warning", verdict.reason, verdict.message),)
