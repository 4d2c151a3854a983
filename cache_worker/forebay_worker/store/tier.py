"""One folder of a tier: its files, its catalogue, and how much it may hold."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from forebay_protocol.control import Problem
from forebay_protocol.keys import ChunkKey, ObjectVersion
from forebay_worker.core.instructions import Unlink
from forebay_worker.store.catalogue import Catalogue
from forebay_worker.store.sealing import Sealing
from forebay_worker.store.sparse import SparseFiles

SUSPENSION = 15.0
"""Seconds for which a folder that failed a write takes no new chunks."""

READ_ERRORS = 3
"""So many failed reads in a row, and the whole folder counts as broken."""

_PROBE = ".forebay-probe"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Room:
    """What a file system has, in bytes."""

    total: int
    available: int


def capacity_in_force(quota: int, used: int, room: Room, reserve: float) -> int:
    """The quota, or what can really be held where the file system has less than that beside its reserve."""
    return max(0, min(quota, used + room.available - int(reserve * room.total)))


def room_problem(medium: str, quota: int, capacity: int, room: Room, reserve: float) -> Problem | None:
    """What to tell when the folder cannot hold its quota."""
    if quota > room.total:
        return Problem(
            reason="QuotaExceedsDisk",
            message=f"the quota of the {medium} tier is {quota} bytes but its file system has {room.total}; "
            "lower the quota or give the tier a larger volume",
        )
    if reserve and capacity < quota:
        return Problem(
            reason="DiskPressure",
            message=f"the {medium} tier may hold {capacity} of {quota} bytes now: its file system is to keep "
            f"{reserve:.0%} free for the node; free space there, lower the quota or give the tier a volume of its own",
        )
    return None


class StorageTier:
    """Keeps chunks of one dataset in one folder."""

    def __init__(self, medium: str, path: Path, dataset: str, sealing: Sealing | None = None) -> None:
        """Open the folder and see that it can be written; the chunks of other datasets and keys are forgotten.

        With ``sealing`` all chunks are encrypted.
        """
        self.sealing = sealing
        self._name = f"{medium} tier ({path})"
        self.problem: Problem | None = None
        self._suspended_until = 0.0
        self._read_errors = 0
        path.mkdir(parents=True, exist_ok=True)
        _probe(path / _PROBE)
        self.files = SparseFiles(path)
        self.catalogue = Catalogue(path, dataset, sealing.key_id if sealing else "")

    def recover(self) -> list[tuple[ObjectVersion, int, int, bytes]]:
        """The chunks that catalogue and files agree on, oldest first; everything else is removed."""
        try:
            rows = self.catalogue.chunks()
        except sqlite3.Error as error:
            _log.warning("catalogue cannot be read; the folder begins anew", tier=self._name, error=str(error))
            self.catalogue.begin_anew()
            rows = []
        kept: list[tuple[ObjectVersion, int, int, bytes]] = []
        known: set[str] = set()
        for one, number, length, sums in rows:
            if self.is_there(ChunkKey(one.object_id, number), length):
                kept.append((one, number, length, sums))
                known.add(one.object_id)
            else:
                self.catalogue.remove(ChunkKey(one.object_id, number))
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

    def start(self, key: ChunkKey) -> bytes | None:
        """What is needed to decrypt the chunk, empty where it is plain; None when it is not here."""
        try:
            return self.catalogue.start(key) if self.sealing else b""
        except sqlite3.Error:
            return None

    def read(self, fd: int, key: ChunkKey, start: bytes, within: int, length: int) -> bytes:
        """Plain bytes of a chunk from ``within`` it on; fewer where the file ends, and where the disk fails."""
        try:
            data = self.files.read(fd, key.number, within, length)
        except OSError as error:
            self._read_errors += 1
            _log.warning("disk failed a read", tier=self._name, error=str(error))
            return b""
        self._read_errors = 0
        return self.sealing.apply(start, within, data) if self.sealing else data

    @property
    def broken(self) -> bool:
        """Whether reads fail again and again."""
        return self._read_errors >= READ_ERRORS

    def write(self, one: ObjectVersion, number: int, data: memoryview, sums: bytes) -> bool:
        """Bytes first, then the catalogue; False, and the folder rests, when the disk refuses."""
        key = ChunkKey(one.object_id, number)
        try:
            if self.sealing:
                start = self.sealing.new_start()
                self.catalogue.seal(key, start)
                data = memoryview(self.sealing.apply(start, 0, data))
            self.files.write(key, data)
            self.catalogue.add(one, number, len(data), sums)
        except (OSError, sqlite3.Error) as error:
            with contextlib.suppress(OSError):
                self.files.remove(key, len(data), lambda: True)
            self._suspend(error)
            return False
        return True

    def remove(self, key: ChunkKey, length: int, in_use: Callable[[], bool]) -> None:
        """Forget a chunk, then free its room; the file goes too unless ``in_use``."""
        # Each for itself: a full disk takes no rows, but it can give room back, and then a row without bytes is known
        # for what it is.
        self._attempt(lambda: self.catalogue.remove(key))
        self._attempt(lambda: self.files.remove(key, length, in_use))

    def unlink(self, instruction: Unlink, name: str) -> None:
        """Forget an object's chunks, then take the file's name; who holds it by lease reads on."""
        self._attempt(lambda: self.catalogue.unlink(instruction.object_id, instruction.room, name))
        self._attempt(lambda: self.files.drop(instruction.object_id))

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, sqlite3.Error) as error:
            self._suspend(error)

    def _suspend(self, error: Exception) -> None:
        self._suspended_until = time.monotonic() + SUSPENSION
        self.problem = Problem(
            reason="TierWriteFailed",
            message=f"the {self._name} refuses writes ({error}); reads go through to the store; "
            "free space on its volume or replace the disk",
        )
        _log.warning("tier refuses writes", tier=self._name, error=str(error))

    def measure(self, medium: str, quota: int, used: int, reserve: float) -> int:
        """The capacity in force now, with ``used`` bytes held; sets ``problem``. OSError when it is gone."""
        room = self.room()
        if time.monotonic() < self._suspended_until:
            return 0
        capacity = capacity_in_force(quota, used, room, reserve)
        self.problem = room_problem(medium, quota, capacity, room, reserve)
        return capacity

    def room(self) -> Room:
        """What its file system has."""
        return Room(*self.files.room())

    def close(self) -> None:
        """Close the catalogue."""
        self.catalogue.close()


def _probe(path: Path) -> None:
    """OSError unless the folder's disk takes and gives a few bytes."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, b"forebay", 0)
        os.fsync(fd)
    finally:
        os.close(fd)
        path.unlink()
