"""The cache's own state under what readers do, with plain LRU on the same trace as reference."""

import random
from collections.abc import Iterator

import pytest

from cachesim.policies import Lru
from cachesim.traces import TRACES, Trace, epochs, ranges, zipf
from forebay_protocol.keys import CHUNK_SIZE, ChunkKey
from forebay_worker.core import events as ev
from forebay_worker.core.chunk import Tier
from forebay_worker.core.instructions import Instruction, Remove, Wait, Write
from forebay_worker.core.state import CacheState

DIGESTS = random.Random(4)


class Cache:
    """A worker's state with disks that are done at once, by chunk number; tiers of so many chunks."""

    def __init__(self, *capacities: int, length: int = CHUNK_SIZE) -> None:
        self.state = CacheState([Tier(capacity * length, 0.95, 0.85) for capacity in capacities])
        self.length = length
        self.keys: dict[int, ChunkKey] = {}

    def key(self, chunk: int) -> ChunkKey:
        """The chunk's key."""
        if chunk not in self.keys:
            self.keys[chunk] = ChunkKey(f"{DIGESTS.getrandbits(256):064x}", chunk % 3)
        return self.keys[chunk]

    def read(self, chunk: int) -> bool:
        """Read one chunk as the store does; whether it was there."""
        key = self.key(chunk)
        found = self.state.pin(key)
        if found is not None:
            self.state.handle(ev.Released(key, found.tier))
            return True
        instructions = self.state.handle(ev.Wanted(key, self.length))
        while any(isinstance(one, Wait) for one in instructions):
            self._remove(instructions)
            instructions = self.state.handle(ev.Wanted(key, self.length))
        self._remove(instructions)
        if any(isinstance(one, Write) for one in instructions):
            self.state.handle(ev.Written(key, b""))
        return False

    def _remove(self, instructions: list[Instruction]) -> None:
        for one in instructions:
            if isinstance(one, Remove):
                self.state.handle(ev.Removed(one.key, one.tier))


def ratio(policy: Cache | Lru, trace: Trace, warm: int = 0) -> float:
    """Share of hits among the reads after the first ``warm``."""
    hits = [policy.read(chunk) for chunk in trace]
    return sum(hits[warm:]) / (len(hits) - warm)


@pytest.mark.parametrize("capacity", [40, 400, 2500])
def test_epochs_over_twice_the_capacity_come_near_the_ideal(capacity: int) -> None:
    """Three shuffled epochs: the best that one can do is to hit capacity/size of the reads; LRU does not."""
    trace = epochs(2 * capacity, 3)

    ours, lru = ratio(Cache(capacity), trace, 2 * capacity), ratio(Lru(capacity), trace, 2 * capacity)

    assert ours >= 0.9 * 0.5
    assert lru <= 0.5 * 0.5


def test_the_cache_finds_out_when_the_readers_change() -> None:
    """New models one after the other, then epochs over twice the capacity: at the end it hits as if it had known."""
    cache = Cache(200)
    for chunk in TRACES["new models, read 4 times each"](200):
        cache.read(chunk)

    assert ratio(cache, [chunk + 10_000 for chunk in epochs(400, 8)], 5 * 400) >= 0.85 * 0.5


@pytest.mark.parametrize("name", TRACES)
def test_recency_is_not_lost(name: str) -> None:
    """On every trace the cache hits as LRU does, less a few percent for finding out, or more."""
    trace = TRACES[name](200)

    assert ratio(Cache(200), trace) >= 0.93 * ratio(Lru(200), trace)


def test_ranges_of_one_chunk_are_one_read() -> None:
    """Readers who ask for a chunk in four parts find it after the first, and do not look like coming back."""
    trace = list(ranges(epochs(1400, 3), 4))

    ours = ratio(Cache(700), trace, 4 * 1400)

    assert ours >= 0.75 + 0.25 * 0.9 * 0.5


def test_a_small_file_counts_by_its_bytes() -> None:
    """The sample of a cache of many small chunks is as good as that of few large ones."""
    trace = zipf(30_000, 60_000)

    assert ratio(Cache(3000, length=4096), trace) >= 0.97 * ratio(Lru(3000), trace)


def cold_models(behind: int, size: int = 24, count: int = 12) -> Iterator[int]:
    """New models of so many chunks, one after the other, by two readers, the second so many chunks ``behind``."""
    for model in range(count):
        first = range(model * size, (model + 1) * size)
        for step in range(size + behind):
            yield from first[step : step + 1]
            if step >= behind:
                yield first[step - behind]


@pytest.mark.parametrize("behind", [1, 5, 12, 24])
def test_readers_who_follow_each_other_share_what_is_fetched(behind: int) -> None:
    """Into a full cache that keeps what it has: the second reader of a cold model finds what the first fetched."""
    cache = Cache(80)
    trace = list(cold_models(behind))

    hits = [cache.read(chunk) for chunk in trace]

    assert sum(hits) == len(trace) / 2


def test_ranges_do_not_put_readers_farther_apart() -> None:
    """The same, but each of them asks for every chunk in eight ranges."""
    cache = Cache(80)
    trace = [chunk for chunk in cold_models(12) for _ in range(8)]

    hits = [cache.read(chunk) for chunk in trace]

    assert hits.count(False) == len(trace) / 16


def test_readers_who_waited_together_may_drift_apart() -> None:
    """Model after model they wait for the same fetches; in a full cache, one falls behind for once and finds all."""
    cache = Cache(80)
    for chunk in range(160):
        for reader in ("10.0.0.1", "10.0.0.2"):
            cache.state.awaited(cache.key(chunk), reader)
        cache.read(chunk)

    hits = [cache.read(1000 + chunk) for chunk in cold_models(9, count=1)]

    assert sum(hits) == len(hits) / 2


def test_a_restarted_cache_that_is_full_shares_at_once() -> None:
    """Nothing is known of the readers yet, and the cache is full of what it keeps."""
    cache = Cache(80)
    for number in range(80):
        cache.state.handle(ev.Found(cache.key(-1 - number), 0, CHUNK_SIZE, b""))
    trace = list(cold_models(6, count=1))

    hits = [cache.read(chunk + 1) for chunk in trace]

    assert sum(hits) == len(trace) / 2


def test_many_slow_readers_of_ranges_do_not_push_each_other_out() -> None:
    """Twelve readers go through a chunk each, in eight ranges, in a cache whose least queue is shorter than that.

    It takes the queue a few chunks to grow; were it as short as at least, all would be fetched for each range.
    """
    cache = Cache(80)
    for chunk in range(80):
        cache.read(chunk)
    trace = [100 + start + reader for start in range(0, 240, 12) for _ in range(8) for reader in range(12)]

    hits = [cache.read(chunk) for chunk in trace]

    assert hits.count(False) <= 1.25 * 240
