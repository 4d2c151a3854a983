"""How long one request to a store may take, so that neither silence nor a slow drip holds a read for ever."""

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """What is granted to one request; seconds, and bytes per second.

    A request ends when its connection, the head of its answer or the whole answer takes too long, or when fewer
    than ``stall_bytes`` arrive in ``stall_seconds``. The time for a whole answer grows with its length.
    """

    connect: float = 3.0
    head: float = 8.0
    least_rate: float = 256 * 1024
    stall_seconds: float = 4.0
    stall_bytes: int = 16 * 1024

    def whole(self, length: int) -> float:
        """Seconds for an answer with a body of so many bytes; small ones are granted as much as a mebibyte."""
        return self.head + max(length, 1024 * 1024) / self.least_rate


PATIENCE = Patience()
"""What is granted where nobody says otherwise."""

PROBE_SECONDS = 6.0
"""What the question whether a store works may take: an outage is to show within 15 s, all included."""


class Deadline:
    """A point in time that a request may not go beyond."""

    def __init__(self, seconds: float, limit: "Deadline | None" = None) -> None:
        """So many seconds from now, but never later than ``limit``."""
        self._end = time.monotonic() + seconds
        if limit is not None:
            self._end = min(self._end, limit._end)

    def left(self) -> float:
        """Seconds that are left; zero or less when it has passed."""
        return self._end - time.monotonic()

    def need(self, most: float) -> float:
        """What is left, at most ``most``; TimeoutError when nothing is."""
        left = self.left()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        return min(left, most)


class Pace:
    """Sees that bytes keep coming: TimeoutError when too few came since the last look that counted."""

    def __init__(self, patience: Patience) -> None:
        """The clock starts now."""
        self._patience = patience
        self._since = time.monotonic()
        self._bytes = 0

    def arrived(self, count: int) -> None:
        """Count bytes, and judge once per ``stall_seconds``."""
        self._bytes += count
        now = time.monotonic()
        if now - self._since >= self._patience.stall_seconds:
            if self._bytes < self._patience.stall_bytes:
                raise TimeoutError("the answer came to a near halt")
            self._since, self._bytes = now, 0
