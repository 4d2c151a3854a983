"""Which tier a chunk belongs into: the fastest one with room at first, later by how often it is read.

Moving pays where a chunk in a slow tier is read much more often than the one in a faster tier that was read
longest ago: "much" is twice, so that chunks that are read equally often, as in training, stay where they are.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial

from forebay_protocol.keys import ChunkKey
from forebay_worker.core.chunk import Chunk, Tier
from forebay_worker.core.duel import RECENT_SHARE

_MOST_HOT = 256
_COLDEST_LOOKED_AT = 8
_WEIGHT_OF_HISTORY = 3


class Placement:
    """The chunks that may be read, by level, the one that was read longest ago first."""

    def __init__(self, tiers: list[Tier]) -> None:
        """``tiers`` are those of the state, which keeps their numbers up to date."""
        self._tiers = tiers
        self._levels: dict[int, OrderedDict[ChunkKey, Chunk]] = {tier.level: OrderedDict() for tier in tiers}
        self._speeds = sorted(self._levels)
        self._hot: OrderedDict[ChunkKey, Chunk] = OrderedDict()
        self._clock = 0

    def _level(self, chunk: Chunk) -> int:
        return self._tiers[chunk.tier].level

    def add(self, chunk: Chunk) -> None:
        """A chunk may be read now."""
        self._levels[self._level(chunk)][chunk.key] = chunk
        chunk.last_read = self._clock

    def remove(self, chunk: Chunk) -> None:
        """It may not any more."""
        del self._levels[self._level(chunk)][chunk.key]
        self._hot.pop(chunk.key, None)

    def read(self, chunk: Chunk, room: float) -> None:
        """A reader has it; ``room`` is what all chunks may take. Ranges of one chunk count as one read."""
        interval = self._clock - chunk.last_read
        if interval < room / RECENT_SHARE:
            return
        chunk.interval = _smoothed(chunk.interval, interval)
        level = self._level(chunk)
        self._levels[level].move_to_end(chunk.key)
        chunk.last_read = self._clock
        if level and len(self._hot) < _MOST_HOT:
            self._hot[chunk.key] = chunk

    def passes(self, length: int) -> None:
        """Bytes are read, of whatever chunk: the clock of all intervals."""
        self._clock += length

    def moved(self, chunk: Chunk, tier: int) -> None:
        """The chunk is read from another tier now."""
        before = self._level(chunk)
        self.remove(chunk)
        chunk.tier = tier
        level = self._level(chunk)
        self._levels[level][chunk.key] = chunk
        self._levels[level].move_to_end(chunk.key, last=level < before)

    def choose(
        self, key: ChunkKey, takes: Callable[[int, Tier], bool], levels: Iterable[int] | None = None
    ) -> int | None:
        """The tier for a chunk, in the first of ``levels``; one folder for all chunks of an object if it takes them."""
        for level in self._speeds if levels is None else levels:
            fitting = [n for n, tier in enumerate(self._tiers) if tier.level == level and takes(n, tier)]
            if len(fitting) > 1:
                return max(fitting, key=lambda number: _score(key.object_id, number, self._tiers[number].capacity))
            if fitting:
                return fitting[0]
        return None

    def next_move(
        self, may_move: Callable[[Chunk], bool], takes: Callable[[ChunkKey, int], bool]
    ) -> tuple[Chunk, int] | None:
        """The chunk to move next and where to: up, or down so that another one can go up."""
        while self._hot:
            _, hot = self._hot.popitem(last=False)
            if not may_move(hot):
                continue
            faster = [level for level in self._speeds if level < self._level(hot)]
            target = self.choose(hot.key, partial(_has_room, hot, takes), faster)
            if target is not None:
                return hot, target
            for level in faster:
                cold = self._coldest(level, may_move)
                if cold is None or not self._much_colder(cold, hot):
                    continue
                slower = [one for one in self._speeds if one > level]
                target = self.choose(cold.key, partial(_fits, cold, takes), slower)
                if target is not None:
                    self._hot[hot.key] = hot
                    self._hot.move_to_end(hot.key, last=False)
                    return cold, target
        return None

    def _coldest(self, level: int, may_move: Callable[[Chunk], bool]) -> Chunk | None:
        for _, chunk in zip(range(_COLDEST_LOOKED_AT), self._levels[level].values(), strict=False):
            if may_move(chunk):
                return chunk
        return None

    def _much_colder(self, cold: Chunk, hot: Chunk) -> bool:
        idle = self._clock - cold.last_read
        # As if it were read now, which is the least that can be said of it.
        return _smoothed(cold.interval, idle) > 2 * hot.interval

    def keys(self) -> set[ChunkKey]:
        """All chunks."""
        return {key for order in self._levels.values() for key in order}


def _smoothed(before: int, interval: int) -> int:
    return (_WEIGHT_OF_HISTORY * (before or interval) + interval) // (_WEIGHT_OF_HISTORY + 1)


def _fits(chunk: Chunk, takes: Callable[[ChunkKey, int], bool], number: int, tier: Tier) -> bool:
    return tier.takes(chunk.length) and takes(chunk.key, number)


def _has_room(chunk: Chunk, takes: Callable[[ChunkKey, int], bool], number: int, tier: Tier) -> bool:
    return tier.has_room(chunk.length) and takes(chunk.key, number)


def _score(object_id: str, number: int, capacity: int) -> float:
    """Weighted rendezvous hashing: folders get objects in proportion to their capacities."""
    mixed = (int(object_id[:16], 16) ^ (number + 1) * 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    return -capacity / math.log((mixed + 1) / ((1 << 64) + 1))
