"""The order in which chunks go when room is wanted.

Spare chunks go first. The others are *settled*, or on *probation*: a queue for chunks that came while the
settled ones were to be kept. It is there so that readers who ask for parts of a chunk, or follow each other,
find what the first of them fetched; then its chunks leave as they came. Its length is that of ``following``.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

from forebay_protocol.keys import CHUNK_SIZE, ChunkKey
from forebay_worker.core.chunk import Chunk
from forebay_worker.core.duel import LET_IN


class EvictionOrder:
    """All chunks that may be read."""

    def __init__(self) -> None:
        """Begin empty."""
        self._spare: OrderedDict[ChunkKey, Chunk] = OrderedDict()
        self._settled: OrderedDict[ChunkKey, Chunk] = OrderedDict()
        self._probation: OrderedDict[ChunkKey, Chunk] = OrderedDict()
        self._probation_bytes = 0
        self._came = 0

    def _of(self, key: ChunkKey) -> OrderedDict[ChunkKey, Chunk]:
        if key in self._settled:
            return self._settled
        return self._spare if key in self._spare else self._probation

    def add(self, chunk: Chunk, probation: float) -> None:
        """A new chunk; ``probation`` bytes may be on probation. Few are settled at once; all while there are more."""
        if probation:
            self._came += 1
            if self._came % LET_IN and self._probation_bytes <= max(probation, CHUNK_SIZE):
                self._probation[chunk.key] = chunk
                self._probation_bytes += chunk.length
                return
        self._settled[chunk.key] = chunk

    def remove(self, chunk: Chunk) -> None:
        """A chunk leaves."""
        order = self._of(chunk.key)
        del order[chunk.key]
        if order is self._probation:
            self._probation_bytes -= chunk.length

    def touch(self, chunk: Chunk, *, keeping: bool) -> None:
        """A chunk was read."""
        order = self._of(chunk.key)
        if order is not self._probation:
            order.move_to_end(chunk.key)
        elif not keeping:
            self.remove(chunk)
            self._settled[chunk.key] = chunk

    def judge(self, chunk: Chunk, *, spare: bool) -> None:
        """Whether the chunk is the first to go."""
        if spare is (chunk.key in self._spare):
            return
        self.remove(chunk)
        (self._spare if spare else self._settled)[chunk.key] = chunk

    def leaving(self, probation: float) -> Iterator[Chunk]:
        """All chunks, the first to go first; those on probation once they have ``probation`` bytes, if that is any."""
        probation_first = probation and self._probation_bytes >= max(probation, CHUNK_SIZE)
        first, last = (self._probation, self._settled) if probation_first else (self._settled, self._probation)
        return chain(self._spare.values(), first.values(), last.values())

    def keys(self) -> set[ChunkKey]:
        """All of them."""
        return self._spare.keys() | self._settled.keys() | self._probation.keys()

    def validate(self) -> None:
        """Raise AssertionError unless all invariants hold."""
        assert self._probation_bytes == sum(chunk.length for chunk in self._probation.values())
        assert len(self.keys()) == len(self._spare) + len(self._settled) + len(self._probation)
