"""Versions of files that are newer than the index: met when a file was opened and its source asked.

They stand in for the index's entries until a generation comes whose listing began later.
"""

import threading
import time
from typing import NamedTuple

from forebay.index import Entry, Snapshot
from forebay.source.base import Listing
from forebay_node.fuse.journal import Journal

_KIND = "newer"


class _Newer(NamedTuple):
    """What the source had, or nothing; and when it was asked (Unix time)."""

    entry: Entry | None
    asked_at: float


class NewerVersions:
    """By mount and key. Thread-safe."""

    def __init__(self, journal: Journal) -> None:
        """The index is right in all but what a predecessor learned."""
        self._journal = journal
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], _Newer] = {}
        for _, (mount, key, entry, asked_at) in journal.items(_KIND):
            self._known[mount, key] = _Newer(None if entry is None else Entry(*entry), asked_at)

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
        known = _Newer(fresh, time.time())
        with self._lock:
            self._known[shown.mount, shown.key] = known
        self._journal.put(_KIND, _name(shown.mount, shown.key), shown.mount, shown.key, fresh, known.asked_at)

    def keep_since(self, moment: float) -> None:
        """A generation whose listing began at that Unix time is shown: it knows better what was learned before."""
        with self._lock:
            passed = [place for place, known in self._known.items() if known.asked_at < moment]
            for place in passed:
                del self._known[place]
                self._journal.drop(_KIND, _name(*place))


def _name(mount: str, key: str) -> str:
    return f"{mount}/{key}"


def is_same(shown: Entry, found: Listing | None) -> bool:
    """Whether the source still has what is shown."""
    return found is not None and (found.version, found.size) == (shown.version, shown.size)
