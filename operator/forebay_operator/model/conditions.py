"""Conditions: judged anew at each look, with transition times that move only when the status does."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from forebay_operator.model.resource import Model

READY = "Ready"
BOUND = "Bound"
SOURCE_REACHABLE = "SourceReachable"
VOLUME_READY = "VolumeReady"
WORKERS_READY = "WorkersReady"
TIERS_READY = "TiersReady"
PROGRESSING = "Progressing"
COMPLETE = "Complete"
FAILED = "Failed"


class Condition(Model):
    """A condition as it stands in a status."""

    type: str
    status: str
    reason: str
    message: str
    observed_generation: int | None = None
    last_transition_time: str


class Verdict(NamedTuple):
    """A condition as judged now, without history."""

    type: str
    status: str
    reason: str
    message: str

    @property
    def true(self) -> bool:
        """Whether the condition holds."""
        return self.status == "True"


def holds(kind: str, reason: str, message: str = "") -> Verdict:
    """A condition that is True."""
    return Verdict(kind, "True", reason, message)


def fails(kind: str, reason: str, message: str) -> Verdict:
    """A condition that is False."""
    return Verdict(kind, "False", reason, message)


def unknown(kind: str, reason: str, message: str) -> Verdict:
    """A condition that nothing is known of yet."""
    return Verdict(kind, "Unknown", reason, message)


def timestamp(now: datetime) -> str:
    """The time as the API server writes it."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(
    former: Sequence[Condition], verdicts: Iterable[Verdict], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The verdicts as conditions; what did not change keeps its transition time."""
    before = {condition.type: condition for condition in former}
    merged = []
    for verdict in verdicts:
        old = before.get(verdict.type)
        kept = old is not None and old.status == verdict.status
        merged.append(
            Condition(
                type=verdict.type,
                status=verdict.status,
                reason=verdict.reason,
                message=verdict.message,
                observed_generation=generation,
                last_transition_time=old.last_transition_time if old is not None and kept else timestamp(now),
            )
        )
    return tuple(merged)
