"""Guess what a handle reads next. Pure: offsets in, chunks to fetch out.

The kernel reads ahead itself and asks with several threads, so requests of a sequential reader arrive a bit
out of order: what lies near the frontier counts as sequential.
"""

from dataclasses import dataclass, field

from forebay_protocol.keys import CHUNK_SIZE

NEAR = 2 * CHUNK_SIZE
"""A read this close to the frontier goes on sequentially."""

EAGER_FIRST_READ = 64 * 1024
"""A first read at the start of a file of at least this length begins a sequential read; a shorter one only peeks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to serve one read: from whole chunks (and which to fetch beforehand), or only the blocks asked for."""

    whole: bool
    ahead: range = field(default=range(0))


SURE = 2
"""So many reads in a row near the frontier make a sequential reader."""


@dataclass(slots=True)
class Readahead:
    """The reading habits of one open file of ``size`` bytes."""

    size: int
    frontier: int = -1
    streak: int = 0
    window: int = 0
    planned: int = 0
    entered: int = -1

    def plan(self, offset: int, length: int, max_window: int) -> Plan:
        """Take note of a read and decide; ``max_window`` is in chunks."""
        end = min(offset + length, self.size)
        if self.frontier < 0:
            begins = offset == 0 and (length >= EAGER_FIRST_READ or end == self.size)
            self.streak = SURE - 1 if begins or self.size <= CHUNK_SIZE else 0
        elif abs(offset - self.frontier) > NEAR:
            self.streak, self.window, self.frontier = 0, 0, end
            self.planned, self.entered = offset // CHUNK_SIZE, -1
            return Plan(whole=self.size <= CHUNK_SIZE)
        else:
            self.streak += 1
        self.frontier = max(self.frontier, end)
        sure = self.streak >= SURE - 1
        return Plan(whole=sure, ahead=self._ahead(max_window) if self.streak >= SURE else range(0))

    def _ahead(self, max_window: int) -> range:
        current = (self.frontier - 1) // CHUNK_SIZE
        if current > self.entered:
            self.entered, self.window = current, self.window * 2 or 1
        self.window = min(self.window, max_window)
        # Topping the window up one chunk at a time keeps all connections busy all the time.
        start = max(self.planned, current + 1)
        stop = min(current + 1 + self.window, -(-self.size // CHUNK_SIZE))
        self.planned = max(self.planned, stop, current + 1)
        return range(start, max(start, stop))
