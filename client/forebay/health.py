"""What a client knows of one worker's health: whether to ask it, and when to look again.

A worker is avoided after a failure, or after it was beaten several times in a row by others that were asked later.
Then a background probe, never a reader, finds out whether it is well: after a pause that doubles up to
``MAX_COOL_DOWN`` as long as it is not.
"""

from dataclasses import dataclass

COOL_DOWN = 1.0
MAX_COOL_DOWN = 15.0
"""Seconds for which a failed worker is left alone: after the first failure, and at most."""

STRIKES = 3
"""So many lost races in a row make a worker slow; a single one may be a hiccup."""


def cool_down(failures: int) -> float:
    """How long to leave a worker alone after so many failures in a row."""
    return float(min(COOL_DOWN * 2 ** (min(failures, 16) - 1), MAX_COOL_DOWN)) if failures else 0.0


@dataclass(slots=True)
class Health:
    """One worker as its callers find it. Times are monotonic."""

    failures: int = 0
    strikes: int = 0
    avoided: bool = False
    probe_at: float = 0.0
    probing: bool = False
    busy_until: float = 0.0

    def good(self) -> None:
        """It gave the bytes in time."""
        self.failures, self.strikes, self.avoided = 0, 0, False

    def failed(self, now: float) -> None:
        """No connection, a broken one, or silence."""
        self.failures += 1
        self.strikes = 0
        self.avoided = True
        self.probe_at = now + cool_down(self.failures)

    def lost(self, now: float) -> None:
        """Somebody who was asked later had the bytes first."""
        self.strikes += 1
        if self.strikes >= STRIKES and not self.avoided:
            self.failed(now)

    def overloaded(self, now: float, retry_after: float) -> None:
        """It said that it has too much to do; nothing is wrong with it."""
        self.busy_until = now + retry_after

    def left_alone(self, now: float) -> bool:
        """Whether others should be asked first."""
        return self.avoided or now < self.busy_until

    def passed(self) -> None:
        """A probe got an answer without bytes: ask it again, but remember its failures until there are some."""
        self.strikes, self.avoided = 0, False

    def wants_probe(self, now: float) -> bool:
        """Whether the pause is over and nobody looks yet."""
        return self.avoided and not self.probing and now >= self.probe_at
