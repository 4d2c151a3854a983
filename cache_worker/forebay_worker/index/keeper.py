"""The newest index of this worker: on disk over restarts, open for look-ups, packed for others."""

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from forebay.index import Snapshot
from forebay_protocol.errors import InvalidRequest

_log = structlog.get_logger()


class IndexKeeper:
    """Thread-safe. Superseded snapshots stay open for those who still look things up in them."""

    def __init__(self, folder: Path) -> None:
        """``folder`` holds the index and what is being written."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "index"
        self._packed = folder / "index.packed"
        self.draft = folder / "index.new"
        self.packed_draft = folder / "index.packed.new"
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Snapshot], None]] = []
        self.current: Snapshot | None = None

    def listen(self, listener: Callable[[Snapshot], None]) -> None:
        """Call ``listener`` with every newer index."""
        self._listeners.append(listener)

    def load(self, dataset: str) -> None:
        """Take up the index from before the restart if it is of this dataset; drop any other."""
        if self.current is not None and self.current.dataset == dataset:
            return
        self.current = None
        try:
            found = Snapshot.open(self._file)
        except (InvalidRequest, FileNotFoundError):
            return
        if found.dataset == dataset and self._packed.exists():
            self._take(found)
        else:
            found.close()

    def adopt_draft(self) -> Snapshot:
        """Make the draft and its packed form the newest index; InvalidRequest when it is none."""
        with self._lock:
            snapshot = Snapshot.open(self.draft)
            self.packed_draft.replace(self._packed)
            self.draft.replace(self._file)
        self._take(snapshot)
        return snapshot

    def _take(self, snapshot: Snapshot) -> None:
        self.current = snapshot
        _log.info("index", generation=snapshot.generation, files=snapshot.file_count, bytes=snapshot.total_bytes)
        for listener in self._listeners:
            listener(snapshot)

    def packed(self) -> tuple[int, Path] | None:
        """Generation and file of the packed index; None while there is none."""
        with self._lock:
            current = self.current
            return None if current is None else (current.generation, self._packed)

    @property
    def generation(self) -> int:
        """The newest generation; 0 while there is none."""
        return 0 if self.current is None else self.current.generation
