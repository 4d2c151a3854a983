"""A mount's limits hold for its workers and for whoever reads directly, as the store's side sees it."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

import pytest

from forebay.direct import DirectSources
from forebay.pool import ConnectionPool
from forebay.reader import ChunkReader
from forebay.ring import RingHolder
from forebay_protocol.dataset import Credentials, SourceLimits
from forebay_protocol.keys import CHUNK_SIZE, ObjectVersion, Span
from forebay_protocol.shares import DIRECT, reader_share
from testkit.buckets import Bucket
from testkit.sample_cluster import Make, versions
from testkit.store_proxy import StoreAnswer, StoreProxy
from testkit.worker_processes import MIB, WorkerCluster

SIZE = 8 * CHUNK_SIZE
PIECE = 256 * 1024


@dataclass
class Observed:
    """What reached the store: when each request was answered with how many bytes, and how many at a time at most."""

    answers: list[tuple[float, int]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, _path: str, answer: StoreAnswer) -> None:
        """Take note of an answer, and hold it for a moment."""
        with self.lock:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            self.answers.append((time.monotonic(), len(answer.body)))
        time.sleep(0.02)
        with self.lock:
            self.open -= 1

    def most_in(self, window: float, *, count: bool = False) -> int:
        """The most bytes, or requests, in any window of so many seconds."""
        return max(
            (sum(1 if count else size for at, size in self.answers[i:] if at < begin + window))
            for i, (begin, _) in enumerate(self.answers)
        )


def limited(make: Make, limits: SourceLimits) -> WorkerCluster:
    """Two workers of a mount with these limits."""
    cluster = make(refresh=None)
    mount = replace(cluster.document.mounts[0], limits=limits)
    cluster.document = replace(cluster.document, mounts=(mount,))
    return cluster.start(2)


@contextmanager
def reader_of(cluster: WorkerCluster, keys: Credentials) -> Iterator[tuple[ChunkReader, DirectSources]]:
    """A node: it reads through the workers, and from the store with its share."""
    worker = cluster.workers[0]
    ring = RingHolder(worker.token, lambda: [("127.0.0.1", worker.control_port)])
    assert ring.refresh()
    sources = DirectSources(cluster.document, {"data": keys}, lambda: reader_share(ring.current, 1))
    with closing(ConnectionPool(worker.token)) as pool, closing(sources):
        yield ChunkReader(ring, pool, sources), sources


@pytest.fixture
def body(bucket: Bucket) -> bytes:
    """The bytes of two objects."""
    data = os.urandom(SIZE)
    bucket.put({"large/a": data, "large/b": data})
    return data


def objects_of(cluster: WorkerCluster) -> list[ObjectVersion]:
    """The two large objects."""
    return [one for key, one in sorted(versions(cluster.wait_for_index()).items()) if key.startswith("large/")]


@pytest.mark.parametrize(
    "limits",
    [
        SourceLimits(bandwidth=12 * MIB),
        SourceLimits(requests_per_second=6),
        SourceLimits(connections=4),
    ],
)
def test_workers_and_a_direct_reader_together_keep_the_limits(
    make: Make, proxy: StoreProxy, keys: Credentials, body: bytes, limits: SourceLimits
) -> None:
    """Two cold workers are read by many threads while a node reads the store itself: all right, no limit broken."""
    cluster = limited(make, limits)
    objects = objects_of(cluster)
    seen = Observed()
    proxy.break_answers(seen)

    with reader_of(cluster, keys) as (reader, direct), ThreadPoolExecutor(12) as pool:
        through = [
            pool.submit(reader.read, one, number * CHUNK_SIZE, CHUNK_SIZE) for one in objects for number in range(4)
        ]
        alone = bytearray(PIECE)
        direct.read_into(objects[0], Span(SIZE - PIECE, PIECE), memoryview(alone))
        assert alone == body[-PIECE:]
        for number, future in enumerate(through):
            offset = number % 4 * CHUNK_SIZE
            assert future.result() == body[offset : offset + CHUNK_SIZE]

    # For each of the three parties the request with which the window begins; its answers may take a tenth of a second.
    if limits.bandwidth:
        assert seen.most_in(2.0) <= 2.1 * limits.bandwidth + 2 * CHUNK_SIZE + PIECE
    if limits.requests_per_second:
        assert seen.most_in(2.0, count=True) <= 2.1 * limits.requests_per_second + 3
    if limits.connections:
        assert seen.most_open <= limits.connections


def test_when_all_workers_vanish_readers_keep_to_their_budget(
    make: Make, proxy: StoreProxy, keys: Credentials, body: bytes
) -> None:
    """Falling back is no stampede: a tenth of the limit, however many threads read."""
    limit = 20 * MIB
    cluster = limited(make, SourceLimits(bandwidth=limit))
    objects = objects_of(cluster)
    with reader_of(cluster, keys) as (reader, _), ThreadPoolExecutor(8) as pool:
        for worker in cluster.workers:
            worker.close()
        seen = Observed()
        proxy.break_answers(seen)
        begin = time.monotonic()

        offsets = [number * PIECE for number in range(24)]
        found = list(pool.map(lambda offset: reader.read(objects[0], offset, PIECE), offsets))

        seconds = time.monotonic() - begin
        assert found == [body[offset : offset + PIECE] for offset in offsets]
        assert reader.counters.direct_bytes == len(offsets) * PIECE
    assert sum(size for _, size in seen.answers) <= DIRECT * limit * seconds
