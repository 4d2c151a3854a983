"""Where chunks were found last, their files kept open: what is read again needs no look-up, and no pin to be copied.

The bytes of a chunk go only after it has said that it is leaving or that it has moved. So who copies them looks
before and after: if the chunk was there both times, the bytes are right (the readers' side of a sequence lock).
"""

import errno
import os
import resource

from forebay_protocol.keys import CHUNK_SIZE, ChunkKey
from forebay_worker.core.chunk import Chunk, Phase

_MOST = 4096
_SHARE_OF_DESCRIPTORS = 4
_PROBE = memoryview(bytearray(1))
"""Takes bytes that only say whether they could be read at once."""


class OpenFile:
    """A descriptor that is closed when the last one who uses this object lets it go."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        """Takes the descriptor over."""
        self.fd = fd

    def __del__(self) -> None:
        """Nobody reads any more."""
        os.close(self.fd)


class Place:
    """A plain chunk in its file, which is let go as soon as the chunk leaves it: its room returns only then."""

    __slots__ = ("_may_wait", "chunk", "file", "offset", "tier")

    def __init__(self, chunk: Chunk, tier: int, file: OpenFile) -> None:
        """``chunk`` is pinned, and its bytes in this tier are in ``file``."""
        self.chunk = chunk
        self.tier = tier
        self.file: OpenFile | None = file
        self.offset = chunk.key.number * CHUNK_SIZE
        self._may_wait = True

    @property
    def holds(self) -> bool:
        """Whether the chunk is here still, and right as far as is known."""
        chunk = self.chunk
        return chunk.verified and chunk.phase is Phase.PRESENT and chunk.tier == self.tier and self.file is not None

    def copy(self, within: int, view: memoryview) -> bool:
        """Fill the view from ``within`` the chunk on; False where the chunk is not here any more or that would wait."""
        file = self.file
        if file is None or not self.holds:
            return False
        try:
            count = self._read(file, within, view)
        except OSError:
            return False
        return count == len(view) and self.holds

    def is_resident(self, within: int, length: int) -> bool:
        """Whether a range of the chunk is in memory, by its first and last byte, so that reading it does not wait."""
        file = self.file
        if file is None or not self._may_wait:
            return file is not None
        try:
            return all(self._read(file, at, _PROBE) for at in (within, within + length - 1))
        except OSError:
            return False

    def _read(self, file: OpenFile, within: int, view: memoryview) -> int:
        if self._may_wait:
            try:
                return os.preadv(file.fd, [view], self.offset + within, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                # File systems in memory do not know the flag, and never wait.
                self._may_wait = False
        return os.preadv(file.fd, [view], self.offset + within)


class Places:
    """The places that were found last. Not thread-safe."""

    def __init__(self) -> None:
        """None is known yet."""
        self._most = min(_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE_OF_DESCRIPTORS)
        self._places: dict[ChunkKey, Place] = {}

    def add(self, place: Place) -> Place:
        """Remember a place; returns the one that is known already, where there is one."""
        known = self._places.get(place.chunk.key)
        if known is not None and known.holds:
            return known
        self.forget(place.chunk.key)
        if len(self._places) >= self._most:
            self.forget(next(iter(self._places)))
        self._places[place.chunk.key] = place
        return place

    def forget(self, key: ChunkKey, tier: int | None = None) -> None:
        """The chunk leaves, or leaves this tier: its file is closed once nobody reads from it."""
        place = self._places.get(key)
        if place is not None and tier in (None, place.tier):
            del self._places[key]
            place.file = None

    def clear(self) -> None:
        """Forget all."""
        for key in list(self._places):
            self.forget(key)
