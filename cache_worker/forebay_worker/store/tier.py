"""One tier: its files, its catalogue, and how much it may hold."""

import contextlib
import os
import sqlite3
import time
from dataclasses import dataclass

import structlog

from forebay_protocol.control import Problem
from forebay_protocol.keys import ChunkKey, ObjectVersion
from forebay_worker.settings import TierSettings
from forebay_worker.store.catalogue import Catalogue
from forebay_worker.store.sparse import SparseFiles

SUSPENSION = 15.0
"""Seconds for which a tier that failed a write takes no new chunks."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Room:
    """What a file system has, in bytes."""

    total: int
    available: int


def capacity_in_force(quota: int, used: int, room: Room) -> int:
    """The quota, or what can really be held where the file system has less."""
    return max(0, min(quota, used + room.available))


def quota_problem(tier: TierSettings, room: Room) -> Problem | None:
    """What to tell when the quota can never be reached."""
    if tier.quota <= room.total:
        return None
    return Problem(
        reason="QuotaExceedsDisk",
        message=f"the quota of the {tier.medium} tier is {tier.quota} bytes but its file system has {room.total}; "
        "lower the quota or give the tier a larger volume",
    )


class StorageTier:
    """Keeps chunks of one dataset in one folder."""

    def __init__(self, settings: TierSettings, dataset: str) -> None:
        """Open the folder; files of other datasets and files that no catalogue knows are removed."""
        self.settings = settings
        self.problem: Problem | None = None
        self._suspended_until = 0.0
        settings.path.mkdir(parents=True, exist_ok=True)
        self.files = SparseFiles(settings.path)
        self._catalogue = Catalogue(settings.path, dataset)

    def recover(self) -> list[tuple[ObjectVersion, int, int, bytes]]:
        """The chunks that catalogue and files agree on, oldest first; everything else is removed."""
        kept: list[tuple[ObjectVersion, int, int, bytes]] = []
        known: set[str] = set()
        for one, number, length, sums in self._catalogue.chunks():
            if self.is_there(ChunkKey(one.object_id, number), length):
                kept.append((one, number, length, sums))
                known.add(one.object_id)
            else:
                self._catalogue.remove(ChunkKey(one.object_id, number))
        for object_id in set(self.files.object_ids()) - known:
            self.files.drop(object_id)
        return kept

    def is_there(self, key: ChunkKey, length: int) -> bool:
        """Whether the file still has data in the chunk's range."""
        try:
            fd = self.files.open(key.object_id)
        except OSError:
            return False
        try:
            return self.files.has_data(fd, key.number, length)
        finally:
            os.close(fd)

    def write(self, one: ObjectVersion, number: int, data: memoryview, sums: bytes) -> bool:
        """Bytes first, then the catalogue; False, and the tier rests, when the disk refuses."""
        try:
            self.files.write(ChunkKey(one.object_id, number), data)
            self._catalogue.add(one, number, len(data), sums)
        except (OSError, sqlite3.Error) as error:
            with contextlib.suppress(OSError):
                self.files.remove(ChunkKey(one.object_id, number), len(data), lambda: True)
            self._suspend(error)
            return False
        return True

    def forget(self, key: ChunkKey) -> None:
        """Take a chunk out of the catalogue; its bytes may go then."""
        try:
            self._catalogue.remove(key)
        except sqlite3.Error as error:
            self._suspend(error)

    def _suspend(self, error: Exception) -> None:
        self._suspended_until = time.monotonic() + SUSPENSION
        self.problem = Problem(
            reason="TierWriteFailed",
            message=f"the {self.settings.medium} tier refuses writes ({error}); reads go through to the store; "
            "free space on its volume or replace the disk",
        )
        _log.warning("tier refuses writes", medium=self.settings.medium, error=str(error))

    def measure(self, used: int) -> int:
        """The capacity in force now, with ``used`` bytes held; keeps ``problem`` up to date."""
        if time.monotonic() < self._suspended_until:
            return 0
        room = Room(*self.files.room())
        self.problem = quota_problem(self.settings, room)
        return capacity_in_force(self.settings.quota, used, room)

    def close(self) -> None:
        """Close the catalogue."""
        self._catalogue.close()
