"""The scrub: finds chunks that vanished or rotted before a reader does.

Every pass looks whether all chunks are still there, then reads and compares as many as the rate allows until
the next pass; a cache smaller than rate times period is read whole in every period.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from forebay_protocol.keys import ChunkKey
from forebay_worker.metrics import Metrics
from forebay_worker.store.tiered import ChunkStore

PERIOD = 25.0
"""Seconds between the beginnings of two passes."""

MEASURE_PERIOD = 5.0
"""Seconds between looks at the tiers' free space, at most, while there is nothing to read."""


class Scrub:
    """A background thread over the newest store."""

    def __init__(self, store: Callable[[], ChunkStore | None], rate: int, metrics: Metrics) -> None:
        """``rate`` is in bytes per second."""
        self._store = store
        self._rate = rate
        self._metrics = metrics
        self._stop = threading.Event()
        self._queue: deque[ChunkKey] = deque()
        self._thread = threading.Thread(target=self._run, name="scrub", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            end = time.monotonic() + PERIOD
            store = self._store()
            if store is not None:
                self.one_pass(store, end)
            while (left := end - time.monotonic()) > 0 and not self._stop.wait(min(left, MEASURE_PERIOD)):
                if store is not None:
                    store.measure()

    def one_pass(self, store: ChunkStore, end: float) -> None:
        """Check presence of all chunks; verify until the queue is empty or ``end`` has come."""
        store.measure()
        for key in store.present():
            store.check_presence(key)
            if self._stop.is_set():
                return
        # After a start the first thing that status waits for is that the old chunks are verified.
        fresh = list(store.unverified())
        if fresh:
            self._queue = deque(fresh)
        elif not self._queue:
            self._queue.extend(store.present())
        while self._queue and time.monotonic() < end and not self._stop.is_set():
            self._verify(store, self._queue.popleft())

    def _verify(self, store: ChunkStore, key: ChunkKey) -> None:
        start = time.monotonic()
        count = store.check(key)
        self._metrics.scrubbed_bytes.inc(count)
        self._stop.wait(max(0.0, count / self._rate - (time.monotonic() - start)))

    def stop(self) -> None:
        """Stop after the chunk at hand."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
