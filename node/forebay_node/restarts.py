"""When to start a server again that has ended. Pure: times in, a pause out.

One that served for a while is replaced at once: its readers wait. One that ends again and again as soon as it
serves would only burn the node's CPU, so the pauses double.
"""

from dataclasses import dataclass

SHORT_LIFE = 1.0
"""Seconds of serving; whoever ends earlier may have failed at what it was asked."""

FREE = 3
"""So many short lives in a row are replaced without a pause: somebody may have killed them."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0

PATIENCE = 30.0
"""Seconds without a server after which the mount is given up: readers get errors rather than wait for ever."""


@dataclass(slots=True)
class Restarts:
    """The lives of one mount's servers. ``short_lives`` counts those in a row that were short."""

    ended_at: float = 0.0
    short_lives: int = 0

    def ended(self, started_at: float, now: float) -> float:
        """A server that served from ``started_at`` on has ended; the pause before the next, in seconds."""
        self.ended_at = now
        return self._pause(is_short=now - started_at < SHORT_LIFE)

    def failed(self, now: float) -> float | None:
        """The next one could not begin; the pause before another try, None when it is too late for that."""
        pause = self._pause(is_short=True)
        return pause if now + pause - self.ended_at < PATIENCE else None

    def _pause(self, *, is_short: bool) -> float:
        self.short_lives = self.short_lives + 1 if is_short else 0
        beyond = self.short_lives - FREE
        return 0.0 if beyond <= 0 else min(FIRST_PAUSE * 2.0 ** (beyond - 1), LONGEST_PAUSE)
