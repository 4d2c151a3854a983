"""Bytes served to readers in the last minutes: the base of the hit ratio."""

import threading
import time
from collections import deque
from collections.abc import Callable

WINDOW = 300.0
_STEP = 10.0


class ServedWindow:
    """Counts in steps of ten seconds and forgets what is older than the window. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._steps: deque[list[float]] = deque()

    def add(self, count: int, *, hit: bool) -> None:
        """So many bytes were served, from a tier or after fetching them."""
        with self._lock:
            step = self._clock() // _STEP
            if not self._steps or self._steps[-1][0] != step:
                self._steps.append([step, 0, 0])
            self._steps[-1][1 if hit else 2] += count

    def totals(self) -> tuple[int, int]:
        """(hit bytes, miss bytes) within the window."""
        with self._lock:
            oldest = (self._clock() - WINDOW) // _STEP
            while self._steps and self._steps[0][0] <= oldest:
                self._steps.popleft()
            return int(sum(step[1] for step in self._steps)), int(sum(step[2] for step in self._steps))
