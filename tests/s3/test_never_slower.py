"""Real workers that are alive and slow: a reader with them is as fast as one without any cache."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from forebay.direct import DirectSources
from forebay.pool import ConnectionPool
from forebay.reader import ChunkReader
from forebay.ring import RingHolder
from forebay_protocol.dataset import Credentials
from forebay_protocol.keys import CHUNK_SIZE, ObjectVersion, Span
from testkit.buckets import Bucket
from testkit.proofs import Proof
from testkit.sample_cluster import document, versions
from testkit.throttle import Throttle
from testkit.worker_processes import MIB, WorkerCluster

STORE_RATE = 50 * MIB
LINK_RATE = 125 * MIB
"""Bytes per second of the store and of each worker."""

LENGTH = MIB
READERS = 4
BODY = os.urandom(4 * CHUNK_SIZE)
KEYS = [f"object{number}" for number in range(4)]

Read = Callable[[ObjectVersion, Span, memoryview], None]


class Scene:
    """Two warm workers and their store, each behind a link; and a reader that knows both."""

    def __init__(self, stack: ExitStack, bucket: Bucket, keys: Credentials, folder: Path) -> None:
        bucket.put(dict.fromkeys(KEYS, BODY))
        store = stack.enter_context(Throttle(urlsplit(bucket.endpoint).port or 80, STORE_RATE))
        shown = document(bucket, f"http://127.0.0.1:{store.port}", None)
        self.cluster = stack.enter_context(WorkerCluster(folder, shown, {"data": keys})).start(2)
        self.objects = list(versions(self.cluster.wait_for_index()).values())
        self.cluster.load_all()
        workers = self.cluster.workers
        self.links = [stack.enter_context(Throttle(worker.data_port, LINK_RATE)) for worker in workers]
        self.cluster.publish(
            [replace(worker.member, data_port=link.port) for worker, link in zip(workers, self.links, strict=True)]
        )
        self.direct = stack.enter_context(closing(DirectSources(shown, {"data": keys})))
        pool = stack.enter_context(closing(ConnectionPool(workers[0].token)))
        ring = RingHolder(workers[0].token, lambda: [("127.0.0.1", workers[0].control_port)])
        assert ring.refresh()
        self.reader = ChunkReader(ring, pool, self.direct)

    def run(self, read_into: Read, count: int) -> list[float]:
        """So many reads all over the objects, by several threads; seconds of each, ascending."""

        def one(number: int) -> float:
            span = Span(number * 7 % (len(BODY) // LENGTH) * LENGTH, LENGTH)
            buffer = memoryview(bytearray(LENGTH))
            begin = time.monotonic()
            read_into(self.objects[number % len(KEYS)], span, buffer)
            seconds = time.monotonic() - begin
            assert buffer == BODY[span.offset : span.end]
            return seconds

        with ThreadPoolExecutor(READERS) as pool:
            return sorted(pool.map(one, range(count)))


@pytest.fixture
def scene(bucket: Bucket, keys: Credentials, tmp_path: Path) -> Iterator[Scene]:
    """Everything at its full rate."""
    with ExitStack() as stack:
        yield Scene(stack, bucket, keys, tmp_path)


@pytest.mark.proof("never-slower", quick=160, full=3000)
def test_slow_workers_cost_readers_next_to_nothing(scene: Scene, proof: Proof) -> None:
    """Reads with workers at 1 % of their rate are as fast as reads of the store itself."""
    direct = scene.run(scene.direct.read_into, proof.rounds)
    scene.run(scene.reader.read_into, proof.rounds)
    assert scene.reader.counters.direct_bytes == 0

    scene.links[1].bytes_per_second = LINK_RATE / 100
    one_slow = scene.run(scene.reader.read_into, proof.rounds)
    direct_bytes = scene.reader.counters.direct_bytes
    scene.links[0].bytes_per_second = LINK_RATE / 100
    all_slow = scene.run(scene.reader.read_into, proof.rounds)

    counters = scene.reader.counters
    at = int(0.99 * proof.rounds)
    proof.counts.update({
        "reads": 4 * proof.rounds,
        "% of direct p99 with one slow worker": round(100 * one_slow[at] / direct[at]),
        "% of direct time with all slow": round(100 * sum(all_slow) / sum(direct)),
        "hedges": counters.hedges,
    })  # fmt: skip
    # Without hedging every second read takes a hundred times as long; the bounds leave room for a busy machine.
    assert one_slow[at] <= 4 * direct[at]
    assert sum(all_slow) <= 2 * sum(direct)
    assert counters.hedges <= 10 + 0.02 * 4 * proof.rounds + READERS
    assert direct_bytes <= 0.1 * proof.rounds * LENGTH, "the other worker stands in for the slow one, not the store"
