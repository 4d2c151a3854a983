"""Which of two ways to evict serves the present readers better: decided by replaying their reads on a sample.

*Recency* lets every chunk in and drops the least recently used one: right for readers who come back soon. *Keeping*
holds on to what is there and lets only few new chunks in: right for readers who go through more than the cache
holds again and again, as training does; recency drops every chunk shortly before it is wanted there. After set
dueling (Qureshi et al., ISCA 2007) with shadow caches on samples by hash (SHARDS, Waldspurger et
al., FAST 2015).
"""

from collections import OrderedDict

from forebay_protocol.keys import ChunkKey
from forebay_worker.core.following import Following

LET_IN = 64
"""Keeping lets one of so many new chunks in, so that it follows slow change."""

MOST_SAMPLED = 2048
"""A shadow holds at most so many chunks; of larger caches it sees a sample."""

RECENT_SHARE = 32
"""Reads of a chunk that was read within so small a share of the capacity belong together: ranges of one chunk."""

_LEAST_SAMPLED = MOST_SAMPLED // 8
_SIGNIFICANT = 6.0
"""Where the two differ by chance alone, one of them leads by so much (a chi-squared) once in seventy rounds."""

_MASK = (1 << 64) - 1


def sample_number(key: ChunkKey) -> int:
    """A number that spreads chunks evenly; the same in all processes."""
    mixed = (int(key.object_id, 16) ^ (key.number * 0x9E3779B97F4A7C15)) & _MASK
    return ((mixed * 0xBF58476D1CE4E5B9) & _MASK) >> 24


class _Shadow:
    """What a cache would hold: lengths by chunk, the least recently used first."""

    def __init__(self) -> None:
        self.held: OrderedDict[int, int] = OrderedDict()
        self.used = 0

    def hit(self, chunk: int) -> bool:
        if chunk not in self.held:
            return False
        self.held.move_to_end(chunk)
        return True

    def enter(self, chunk: int, length: int, capacity: float) -> None:
        self.held[chunk] = length
        self.used += length
        while self.used > capacity and len(self.held) > 1:
            self.used -= self.held.popitem(last=False)[1]

    def become(self, held: dict[int, int]) -> None:
        self.held = OrderedDict(held)
        self.used = sum(held.values())


class Duel:
    """Tell it all reads; ``keeping`` is the verdict."""

    def __init__(self, *, keeping: bool = True) -> None:
        """Keeping rules until recency has shown to be better: it saves the writes of what nobody reads again."""
        self.keeping = keeping
        self._every = 1
        self._recency = _Shadow()
        self._keep = _Shadow()
        self._probation = _Shadow()
        self._latest = _Shadow()
        self._following = Following()
        self._round_bytes = 0
        self._misses = 0
        self._lead = 0.0
        self._variance = 0.0

    @property
    def probation_share(self) -> float:
        """The part of the room that chunks should have which keeping does not let in, for those who follow closely."""
        return self._following.share

    def awaited(self, key: ChunkKey, reader: str) -> None:
        """Somebody waits for a chunk that has to be fetched; ``reader`` tells the readers apart."""
        chunk = sample_number(key)
        if chunk % self._every == 0:
            self._following.awaited(chunk, reader)

    def read(self, key: ChunkKey, length: int, capacity: float) -> None:
        """Somebody reads a chunk of ``length`` bytes; the real cache holds ``capacity`` bytes."""
        chunk = sample_number(key)
        if chunk % self._every or not capacity:
            return
        room = capacity / self._every
        if self._latest.hit(chunk):
            return
        self._following.read(chunk, length, room)
        self._latest.enter(chunk, length, room / RECENT_SHARE)
        self._compare(chunk, length, room)
        self._round_bytes += length
        if self._round_bytes >= room:
            self._end_round()
        if len(self._recency.held) > MOST_SAMPLED:
            self._sample_one_of(2 * self._every)

    def _compare(self, chunk: int, length: int, room: float) -> None:
        kept = self._keep.hit(chunk) or chunk in self._probation.held
        recent = self._recency.hit(chunk)
        if kept is not recent:
            self._lead += length if kept else -length
            self._variance += length * length
        if not recent:
            self._recency.enter(chunk, length, room)
        if not kept:
            self._following.arrived(chunk, length)
            self._misses += 1
            probation = room * self.probation_share
            if self._keep.used + length <= room - probation or self._misses % LET_IN == 0:
                self._keep.enter(chunk, length, room - probation)
            else:
                self._probation.enter(chunk, length, probation)

    def _end_round(self) -> None:
        """Whoever hits more rules, if that is no chance (McNemar's test); older rounds count for half each.

        Where recency rules, keeping goes on from what is there now.
        """
        if self._lead * self._lead > _SIGNIFICANT * self._variance:
            self.keeping = self._lead > 0
            if not self.keeping:
                self._keep.become(self._recency.held)
                self._probation.become({})
        self._round_bytes = 0
        self._lead /= 2
        self._variance /= 2
        if self._every > 1 and len(self._recency.held) < _LEAST_SAMPLED:
            self._every //= 2

    def _sample_one_of(self, every: int) -> None:
        self._every = every
        for shadow in (self._recency, self._keep, self._probation, self._latest):
            shadow.become({chunk: length for chunk, length in shadow.held.items() if chunk % every == 0})
        self._following.keep_only(every)
