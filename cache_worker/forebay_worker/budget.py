"""A bound on the bytes that are in memory at the same time; who wants more waits."""

import threading
import time
from collections.abc import Callable

from forebay_protocol.errors import Overloaded
from forebay_worker.arrival import Condition
from forebay_worker.metrics import Metrics


class Slots:
    """A bound on how many do something at the same time. Thread-safe."""

    def __init__(self, count: int, condition: Callable[[], Condition] = threading.Condition) -> None:
        """So many at once."""
        self._free = count
        self._changed = condition()

    def take(self) -> None:
        """Wait for a slot, which is then ours."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0)
            self._free -= 1

    def try_take(self) -> bool:
        """Take a slot if one is free."""
        with self._changed:
            if not self._free:
                return False
            self._free -= 1
            return True

    def give(self) -> None:
        """The slot is free again."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()


class MemoryBudget:
    """Bytes of chunks on their way in. Thread-safe."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        """``limit`` in bytes."""
        self._limit = limit
        self._metrics = metrics
        self._used = 0
        self._freed = threading.Condition()

    def take(self, count: int, patience: float) -> None:
        """Wait until the bytes are free; Overloaded when that takes more than ``patience`` seconds."""
        end = time.monotonic() + patience
        with self._freed:
            # Something larger than the whole budget passes alone rather than never.
            while self._used and self._used + count > self._limit:
                left = end - time.monotonic()
                if left <= 0:
                    raise Overloaded("too many chunks are being fetched", retry_after=1.0)
                self._freed.wait(left)
            self._used += count
            self._metrics.filling_bytes.set(self._used)

    def give(self, count: int) -> None:
        """The bytes are free again."""
        with self._freed:
            self._used -= count
            self._metrics.filling_bytes.set(self._used)
            self._freed.notify_all()
