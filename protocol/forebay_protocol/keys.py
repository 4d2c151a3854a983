"""The identity of cached bytes: which object, in which version, and which piece of it.

An object is cut into chunks of ``CHUNK_SIZE`` bytes, the unit of placement, fetching and eviction; a chunk
is checksummed in blocks of ``BLOCK_SIZE`` bytes, the unit of verification. The last chunk and the last
block of an object are as short as the object demands; an empty object has no chunks.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

CHUNK_SIZE = 4 * 1024 * 1024
BLOCK_SIZE = 64 * 1024


class Span(NamedTuple):
    """A piece of an object: ``length`` bytes from ``offset``."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset of the first byte after the piece."""
        return self.offset + self.length


@dataclass(frozen=True)
class ObjectVersion:
    """One immutable version of one object of a dataset.

    ``dataset`` is the Dataset's UID (so a re-created Dataset of the same name shares nothing), ``mount`` the
    name of the mount, ``key`` the object's full key in the source, ``version`` what the source compares
    (an S3 ETag without quotes), ``size`` its length in bytes.
    """

    dataset: str
    mount: str
    key: str
    version: str
    size: int

    @cached_property
    def object_id(self) -> str:
        """64 hex digits that name this version everywhere; the only name that reaches a file system."""
        digest = hashlib.blake2b(digest_size=32)
        for part in (self.dataset, self.mount, self.key, self.version, str(self.size)):
            raw = part.encode("utf-8", "surrogateescape")
            digest.update(len(raw).to_bytes(4, "big"))
            digest.update(raw)
        return digest.hexdigest()

    @property
    def chunk_count(self) -> int:
        """How many chunks the object has; 0 for an empty one."""
        return -(-self.size // CHUNK_SIZE)

    def chunk_span(self, index: int) -> Span:
        """Where chunk ``index`` lies in the object; IndexError when it has no such chunk."""
        offset = index * CHUNK_SIZE
        if index < 0 or offset >= self.size:
            raise IndexError(f"object of {self.size} bytes has no chunk {index}")
        return Span(offset, min(CHUNK_SIZE, self.size - offset))

    def chunks(self) -> Iterator[int]:
        """The indexes of all chunks."""
        return iter(range(self.chunk_count))


class ChunkKey(NamedTuple):
    """One chunk of one object version; ``number`` counts from 0 (a tuple's own ``index`` is taken)."""

    object_id: str
    number: int


def block_count(length: int) -> int:
    """How many checksummed blocks ``length`` bytes make, counted from a block's start."""
    return -(-length // BLOCK_SIZE)


def block_aligned(offset: int, length: int, size: int) -> Span:
    """The smallest span of whole blocks around ``[offset, offset + length)`` in an object of ``size`` bytes."""
    start = offset - offset % BLOCK_SIZE
    end = min(-(-(offset + length) // BLOCK_SIZE) * BLOCK_SIZE, size)
    return Span(start, end - start)


def chunk_pieces(offset: int, length: int) -> Iterator[tuple[int, Span]]:
    """Cut a range of an object at chunk borders: pairs of chunk index and span within the object."""
    end = offset + length
    while offset < end:
        index = offset // CHUNK_SIZE
        stop = min(end, (index + 1) * CHUNK_SIZE)
        yield index, Span(offset, stop - offset)
        offset = stop
