"""Moves chunks between tiers in the background, at a bounded rate."""

import threading
from collections.abc import Callable

from forebay_worker.store.tiered import ChunkStore

MOVE_RATE = 64 * 1024 * 1024
"""Bytes per second, at most."""

_LOOK_SECONDS = 1.0


class Mover:
    """A background thread over the newest store."""

    def __init__(self, store: Callable[[], ChunkStore | None], rate: int = MOVE_RATE) -> None:
        """``rate`` is in bytes per second."""
        self._store = store
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mover", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            store = self._store()
            moved = 0 if store is None else store.move_one()
            self._stop.wait(moved / self._rate if moved else _LOOK_SECONDS)

    def stop(self) -> None:
        """Stop after the chunk at hand."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
