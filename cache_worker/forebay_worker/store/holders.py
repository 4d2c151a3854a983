"""Who holds objects' files open: descriptors that other processes got from this worker.

A lease is renewed by its holder; who does not within ``LEASE_SECONDS`` is taken for dead. Leases are kept in their
folder's catalogue, so that after a restart of the worker the files of holders that live are still not punched, and the
room of files that lost their name still counts; all get a whole term then to renew.
"""

import contextlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from forebay_protocol.keys import ObjectVersion
from forebay_worker.core import events as ev
from forebay_worker.core.instructions import Granted, Instruction, Unlink
from forebay_worker.store.folders import Folders
from forebay_worker.store.tier import StorageTier

LEASE_SECONDS = 60.0
"""The term of a lease."""


@dataclass(frozen=True, slots=True)
class ObjectLease:
    """An object's file in one tier, open for reading; the receiver closes ``fd`` and renews or ends the lease."""

    name: str
    tier: int
    fd: int


class Holders:
    """All leases of one store. Thread-safe."""

    def __init__(
        self,
        folders: Folders,
        apply: Callable[[ev.Event], list[Instruction]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``apply`` feeds the store's state; ``clock`` gives seconds."""
        self._folders = folders
        self._apply = apply
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[str, tuple[int, float]] = {}

    def take_over(self, number: int, tier: StorageTier) -> None:
        """Go on with the leases that a folder's catalogue knows."""
        unlinked: dict[str, tuple[list[str], str, int]] = {}
        for name, object_id, chunks, file, room in tier.catalogue.leases():
            # Where the folder was only away, the state knows the lease; what it held then is gone.
            self._apply(ev.LeaseEnded(name))
            if file is not None:
                unlinked.setdefault(file, ([], object_id, room))[0].append(name)
            elif not self._grant(name, number, object_id, chunks):
                tier.catalogue.end_lease(name)
                continue
            with self._lock:
                self._ends[name] = (number, self._clock() + LEASE_SECONDS)
        for names, object_id, room in unlinked.values():
            self._apply(ev.FoundUnlinked(tuple(names), number, object_id, room))

    def _grant(self, name: str, number: int, object_id: str, chunks: int) -> bool:
        return Granted(name) in self._apply(ev.Leased(name, number, object_id, chunks))

    def lease(self, one: ObjectVersion, tier: int) -> ObjectLease | None:
        """Hold the object's file in a tier open; None when there is none, it is encrypted or just losing chunks."""
        if self._is_encrypted(tier):
            return None
        name, chunks = secrets.token_urlsafe(12), len(list(one.chunks()))
        if not self._grant(name, tier, one.object_id, chunks):
            return None
        try:
            storage = self._folders[tier]
            storage.catalogue.add_lease(name, one.object_id, chunks)
            fd = storage.files.open(one.object_id)
        except (OSError, sqlite3.Error):
            self.end(name)
            return None
        with self._lock:
            self._ends[name] = (tier, self._clock() + LEASE_SECONDS)
        return ObjectLease(name, tier, fd)

    def _is_encrypted(self, tier: int) -> bool:
        try:
            return self._folders[tier].sealing is not None
        except OSError:
            return False

    def renew(self, name: str) -> bool:
        """One more term; False when the lease has ended, and nothing is promised of the file any more."""
        with self._lock:
            known = self._ends.get(name)
            if known is not None:
                self._ends[name] = (known[0], self._clock() + LEASE_SECONDS)
        return known is not None

    def end(self, name: str) -> None:
        """The holder has closed the file."""
        with self._lock:
            known = self._ends.pop(name, None)
        if known is not None:
            with contextlib.suppress(OSError, sqlite3.Error):
                self._folders[known[0]].catalogue.end_lease(name)
        self._apply(ev.LeaseEnded(name))

    def end_expired(self) -> None:
        """End the leases that nobody renewed."""
        now = self._clock()
        with self._lock:
            expired = [name for name, (_, end) in self._ends.items() if end < now]
        for name in expired:
            self.end(name)

    def unlink(self, instruction: Unlink) -> None:
        """Take the name from a file that leases hold open."""
        with contextlib.suppress(OSError):
            self._folders[instruction.tier].unlink(instruction, secrets.token_hex(8))
