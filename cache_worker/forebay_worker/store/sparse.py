"""The files of one tier: one sparse file per object, chunks at their offsets.

Names are digests, two levels deep: nothing that a user wrote reaches the file system.
"""

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from forebay_protocol.keys import CHUNK_SIZE, ChunkKey

_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02
_STRIPES = 64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def _punch(fd: int, offset: int, length: int) -> None:
    if _libc.fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class SparseFiles:
    """Reads, writes and frees chunks. All methods raise OSError as the file system gives it."""

    def __init__(self, root: Path) -> None:
        """``root`` holds the folder ``objects``, made here when it is missing."""
        self._root = root / "objects"
        self._root.mkdir(parents=True, exist_ok=True)
        # A writer opens and a remover unlinks under the same lock, so that no writer is left with a file
        # that has just lost its name.
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    def path(self, object_id: str) -> Path:
        """The file of an object."""
        return self._root / object_id[:2] / object_id

    def _stripe(self, object_id: str) -> threading.Lock:
        return self._stripes[int(object_id[:2], 16) % _STRIPES]

    def write(self, key: ChunkKey, data: memoryview) -> None:
        """Put a whole chunk at its place."""
        with self._stripe(key.object_id):
            try:
                fd = self._open_to_write(key.object_id)
            except FileNotFoundError:
                self.path(key.object_id).parent.mkdir(exist_ok=True)
                fd = self._open_to_write(key.object_id)
        try:
            position = 0
            while position < len(data):
                position += os.pwrite(fd, data[position:], key.number * CHUNK_SIZE + position)
        finally:
            os.close(fd)

    def _open_to_write(self, object_id: str) -> int:
        return os.open(self._name(object_id), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _name(self, object_id: str) -> str:
        # No Path: this is on the way of every hit and every fill, and making one costs more than opening the file.
        return f"{self._root}/{object_id[:2]}/{object_id}"

    def open(self, object_id: str) -> int:
        """A descriptor to read an object's file; the caller closes it."""
        return os.open(self._name(object_id), os.O_RDONLY | os.O_CLOEXEC)

    def remove(self, key: ChunkKey, length: int, in_use: Callable[[], bool]) -> None:
        """Free a chunk's room; the file goes too unless ``in_use`` says that other chunks are in it."""
        path = self.path(key.object_id)
        with self._stripe(key.object_id):
            try:
                if not in_use():
                    path.unlink()
                    return
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            try:
                _punch(fd, key.number * CHUNK_SIZE, length)
            finally:
                os.close(fd)

    def has_data(self, fd: int, number: int, length: int) -> bool:
        """Whether the chunk's range lies in the file and has no hole."""
        offset = number * CHUNK_SIZE
        try:
            return (
                os.lseek(fd, offset, os.SEEK_DATA) == offset and os.lseek(fd, offset, os.SEEK_HOLE) >= offset + length
            )
        except OSError as error:
            if error.errno == errno.ENXIO:
                return False
            raise

    def read(self, fd: int, number: int, within: int, length: int) -> bytes:
        """A chunk's bytes from ``within`` it on; fewer where the file ends."""
        return os.pread(fd, length, number * CHUNK_SIZE + within)

    def object_ids(self) -> Iterator[str]:
        """All objects that have a file."""
        for folder in self._root.iterdir():
            if folder.is_dir():
                yield from (path.name for path in folder.iterdir())

    def drop(self, object_id: str) -> None:
        """Remove an object's file."""
        with self._stripe(object_id):
            self.path(object_id).unlink(missing_ok=True)

    def room(self) -> tuple[int, int]:
        """Bytes of the file system: all, and available to us."""
        seen = os.statvfs(self._root)
        return seen.f_blocks * seen.f_frsize, seen.f_bavail * seen.f_frsize
