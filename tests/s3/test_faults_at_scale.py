"""Readers before workers before a real store, with every kind of fault between them, many thousand times."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forebay.reader import ChunkReader
from forebay_protocol.dataset import Credentials
from forebay_protocol.errors import ForebayError
from forebay_protocol.keys import CHUNK_SIZE, ObjectVersion
from testkit.buckets import Bucket
from testkit.data_client import client_of
from testkit.proofs import Proof
from testkit.sample_cluster import document, versions
from testkit.seeding import content
from testkit.store_faults import SEEN_AT_ONCE, Journal, SeededStoreFaults, StoreFault
from testkit.store_proxy import StoreProxy
from testkit.wire_proxy import WireFault, WireProxy
from testkit.worker_processes import MIB, TierFolder, WorkerCluster

HANG = 30.0
"""Seconds in which every read ends, one way or the other."""

_SMALL = {f"small/{number:03}": content(f"small {number}", 1 + number * 307 % 100_000) for number in range(400)}
_TAILED = {f"tailed/{number:02}": content(f"tailed {number}", CHUNK_SIZE + 1 + number * 3571) for number in range(12)}
_OBJECTS = _SMALL | _TAILED
_VERDICTS = (StoreFault.MISSING, StoreFault.PRECONDITION, StoreFault.FORBIDDEN, StoreFault.WRONG_ETAG)
_WEIGHTS = {**SEEN_AT_ONCE, **dict.fromkeys(_VERDICTS, 0.5)}
"""Four verdicts in a row are believed: a store that gives false ones as often as all else would be, now and then."""

_CLIENTS = 6
"""As many mounts: each has a few connections to every worker."""
_READERS = 144
_PROGRESS = 500
_FETCHERS = ("--fetchers", "48")
"""For each worker: most of them wait for an answer that does not come."""

_TIERS = (TierFolder(quota=2 * MIB),)
"""So little that most reads are cold."""


def _behind_first(one: ObjectVersion) -> int:
    """Where a read may begin: the first chunk of a large object would be all that is read otherwise."""
    return CHUNK_SIZE if one.size > CHUNK_SIZE else 0


def _a_range(dice: random.Random, one: ObjectVersion) -> tuple[int, int]:
    """A range of the object: anything in a small one, behind the first chunk of a large one."""
    first = _behind_first(one)
    start = dice.randrange(first, one.size)
    return (first, one.size - first) if dice.random() < 0.5 else (start, dice.randrange(1, one.size - start + 1))


def _read(reader: ChunkReader, one: ObjectVersion, offset: int, length: int) -> tuple[str, float]:
    start = time.monotonic()
    try:
        got = bytes(reader.read(one, offset, length))
    except ForebayError as error:
        kind = f"failed: {error.reason}"
    else:
        kind = "right" if got == _OBJECTS[one.key][offset : offset + length] else "WRONG"
    return kind, time.monotonic() - start


class _Readers:
    """Many threads that read at random until enough faults were met or a promise is broken."""

    def __init__(
        self, clients: list[ChunkReader], objects: list[ObjectVersion], proof: Proof, faults: Callable[[], int]
    ) -> None:
        self._clients = clients
        self._objects = objects
        self._proof = proof
        self._faults = faults
        self.blind: Callable[[ObjectVersion], bool] = lambda _: False
        """Where a wrong byte is counted, not forbidden, since nothing can tell."""
        self.range_of: Callable[[random.Random, ObjectVersion], tuple[int, int]] = _a_range
        self._lock = threading.Lock()
        self._over = threading.Event()

    def run(self) -> None:
        """Read; returns when every thread has ended its last read."""
        seed = self._proof.counts["reads"]
        with ThreadPoolExecutor(_READERS) as pool:
            for one in [pool.submit(self._read_on, number, f"{seed}/{number}") for number in range(_READERS)]:
                one.result()

    def _read_on(self, number: int, seed: str) -> None:
        client, dice = self._clients[number % len(self._clients)], random.Random(seed)
        try:
            while not self._over.is_set():
                one = dice.choice(self._objects)
                outcome, seconds = _read(client, one, *self.range_of(dice, one))
                self._note("unseen" if outcome == "WRONG" and self.blind(one) else outcome, seconds)
        finally:
            self._over.set()

    def _note(self, outcome: str, seconds: float) -> None:
        counts = self._proof.counts
        with self._lock:
            counts["reads"] += 1
            counts["faults"] = self._faults()
            counts["wrong reads"] += outcome == "WRONG"
            counts["failed reads"] += outcome.startswith("failed")
            counts["reads with a flip that nothing tells"] += outcome == "unseen"
            counts["slowest read in ms"] = max(counts["slowest read in ms"], round(seconds * 1000))
            if outcome.startswith("failed"):
                counts[outcome] += 1
            if counts["reads"] % _PROGRESS == 0:
                self._proof.checkpoint()
                print(dict(counts), flush=True)
            broken = counts["wrong reads"] or counts["slowest read in ms"] > HANG * 1000
            if broken or counts["faults"] >= self._proof.rounds:
                self._over.set()


@pytest.fixture(scope="module")
def seeded(minio: str, fresh_bucket: Callable[[str], Bucket]) -> Bucket:
    """A bucket with all objects."""
    bucket = fresh_bucket(minio)
    bucket.put(_OBJECTS)
    return bucket


@contextlib.contextmanager
def _cluster(
    bucket: Bucket, keys: Credentials, endpoint: str, folder: Path, journal: Journal, wire_share: float, seed: int
) -> Iterator[tuple[list[ChunkReader], list[ObjectVersion]]]:
    """Three workers and some clients; the workers' traffic with these and with each other passes a wire proxy each."""
    with contextlib.ExitStack() as stack:
        made = WorkerCluster(folder, document(bucket, endpoint, None), {"data": keys}, tiers=_TIERS, flags=_FETCHERS)
        cluster = stack.enter_context(made).start(3)
        objects = [one for one in versions(cluster.wait_for_index()).values() if one.size]
        proxies = [stack.enter_context(WireProxy(one.member, seed, journal)) for one in cluster.workers]
        cluster.publish([one.member for one in proxies])
        clients = [stack.enter_context(client_of(cluster)) for _ in range(_CLIENTS)]
        for proxy in proxies:
            proxy.share = wire_share
        yield clients, objects


@pytest.mark.timeout(900)
@pytest.mark.proof("faults-at-scale", quick=3_000, full=100_000)
def test_half_of_all_answers_of_the_store_are_broken(
    seeded: Bucket, proxy: StoreProxy, keys: Credentials, tmp_path: Path, proof: Proof
) -> None:
    """No wrong byte, no read over 30 s, at most 0.1 % of reads fail."""
    counts, begun = proof.counts, proof.counts["reads"]
    store = SeededStoreFaults(begun, 0.5, lambda path: _OBJECTS[path.split("/", 2)[2]], _WEIGHTS)
    before, wire = counts["faults"], Journal()
    with _cluster(seeded, keys, proxy.url, tmp_path, wire, 0.05, begun) as (clients, objects):
        proxy.break_answers(store)
        _Readers(clients, objects, proof, lambda: before + len(store.journal) + len(wire)).run()

    assert not counts["wrong reads"]
    assert counts["slowest read in ms"] < HANG * 1000
    kinds = {line.kind for line in (*store.journal.lines(), *wire.lines())}
    assert kinds == {str(kind) for kind in (*StoreFault, *WireFault)} - {StoreFault.FLIPPED_BIT}
    assert counts["failed reads"] <= counts["reads"] / 1000, counts


@pytest.mark.timeout(900)
@pytest.mark.proof("flipped-bits", quick=60, full=10_000)
def test_a_bit_that_flips_over_plain_http(
    seeded: Bucket, proxy: StoreProxy, keys: Credentials, tmp_path: Path, proof: Proof
) -> None:
    """It is never handed on where a whole object comes in one request: the ETag tells; elsewhere it is only counted."""
    counts, begun = proof.counts, proof.counts["reads"]
    store = SeededStoreFaults(begun, 0.3, lambda path: _OBJECTS[path.split("/", 2)[2]], {StoreFault.FLIPPED_BIT: 1.0})
    before = counts["faults"]
    with _cluster(seeded, keys, proxy.url, tmp_path, Journal(), 0.0, begun) as (clients, objects):
        proxy.break_answers(store)
        readers = _Readers(clients, objects, proof, lambda: before + len(store.journal))
        readers.blind = lambda one: one.chunk_count > 1
        readers.range_of = lambda _, one: (_behind_first(one), one.size - _behind_first(one))
        readers.run()

    assert not counts["wrong reads"]
    assert not counts["failed reads"]
    assert len({line.object for line in store.journal.lines()}) > 10
