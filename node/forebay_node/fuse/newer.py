"""Versions of files that are newer than the index: met when a file was opened and its source asked.

They stand in for the index's entries until a generation comes whose listing began later.
"""

import threading
import time
from typing import NamedTuple

from forebay.index import Entry, Snapshot
from forebay.source.base import Listing


class _Newer(NamedTuple):
    """What the source had, or nothing; and when it was asked (Unix time)."""

    entry: Entry | None
    asked_at: float


class NewerVersions:
    """By mount and key. Thread-safe."""

    def __init__(self) -> None:
        """The index is right in all."""
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], _Newer] = {}

    def of(self, entry: Entry | None) -> Entry | None:
        """What to show instead of an entry of the index: mostly itself, None for a file that is gone."""
        if entry is None or not self._known:
            return entry
        with self._lock:
            known = self._known.get((entry.mount, entry.key))
        return entry if known is None else known.entry

    def entry(self, inode: int) -> Entry | None:
        """The newer version that has this inode."""
        with self._lock:
            entries = [known.entry for known in self._known.values() if known.entry is not None]
        return next((entry for entry in entries if entry.inode == inode), None)

    def learn(self, snapshot: Snapshot, shown: Entry, found: Listing | None) -> None:
        """The source has this instead of what was shown, or nothing."""
        fresh = None if found is None else snapshot.in_version(shown, found.version, found.size, found.mtime_ns)
        with self._lock:
            self._known[shown.mount, shown.key] = _Newer(fresh, time.time())

    def keep_since(self, moment: float) -> None:
        """A generation whose listing began at that Unix time is shown: it knows better what was learned before."""
        with self._lock:
            self._known = {place: known for place, known in self._known.items() if known.asked_at >= moment}


def is_same(shown: Entry, found: Listing | None) -> bool:
    """Whether the source still has what is shown."""
    return found is not None and (found.version, found.size) == (shown.version, shown.size)
