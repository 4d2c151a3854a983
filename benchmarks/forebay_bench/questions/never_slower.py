"""Workers that are alive at 1 % of their rate, and workers that all vanish: beside reading without any cache."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from forebay.direct import DirectSources
from forebay.pool import ConnectionPool
from forebay.reader import ChunkReader
from forebay.ring import RingHolder
from forebay_bench import rig
from forebay_bench.results import Row, compared
from forebay_bench.runs import ROUNDS, interleaved
from forebay_protocol.dataset import SourceLimits
from forebay_protocol.keys import CHUNK_SIZE, ObjectVersion, Span
from forebay_protocol.shares import DIRECT, reader_share
from testkit.progress import Progress
from testkit.sample_cluster import versions
from testkit.store import Store
from testkit.throttle import Throttle
from testkit.worker_processes import MIB, WorkerCluster

STORE_MBIT = 400
LINK_RATE = 125_000_000
SLOW = 0.01
LENGTH = MIB
READS, WARM = 800, 100
READERS = 4
BODY = os.urandom(16 * CHUNK_SIZE)
OBJECTS = 4

Read = Callable[[ObjectVersion, Span, memoryview], None]


@dataclass(slots=True)
class _Scene:
    cluster: WorkerCluster
    objects: list[ObjectVersion]
    links: list[Throttle]
    hedges: int = 0

    def rate(self, *shares: float) -> None:
        for link, share in zip(self.links, shares, strict=True):
            link.bytes_per_second = LINK_RATE * share

    def reads(self, read_into: Read, count: int) -> list[float]:
        """Seconds of each of so many reads by several threads, ascending."""

        def one(number: int) -> float:
            span = Span(number * 37 % (len(BODY) // LENGTH) * LENGTH, LENGTH)
            buffer = memoryview(bytearray(LENGTH))
            begin = time.perf_counter()
            read_into(self.objects[number % OBJECTS], span, buffer)
            return time.perf_counter() - begin

        with ThreadPoolExecutor(READERS) as pool:
            return sorted(pool.map(one, range(count)))

    @contextmanager
    def client(self) -> Iterator[tuple[ChunkReader, DirectSources]]:
        """A node of its own, which knows the ring."""
        worker = self.cluster.workers[0]
        ring = RingHolder(worker.token, lambda: [("127.0.0.1", worker.control_port)])
        if not ring.refresh():
            raise RuntimeError("the worker gives no ring")
        sources = DirectSources(
            self.cluster.document, dict(self.cluster.credentials), lambda: reader_share(ring.current, 1)
        )
        with closing(ConnectionPool(worker.token)) as pool, closing(sources):
            yield ChunkReader(ring, pool, sources), sources

    def slowed(self, *shares: float) -> list[float]:
        """The reads of a client that has seen the workers well, from the moment on in which they become slow."""
        self.rate(1, 1)
        with self.client() as (reader, _):
            self.reads(reader.read_into, WARM)
            self.rate(*shares)
            found = self.reads(reader.read_into, READS)
            self.hedges += reader.counters.hedges
            return found

    def direct(self) -> list[float]:
        with self.client() as (_, sources):
            return self.reads(sources.read_into, READS)


def measure(progress: Progress) -> tuple[list[Row], list[str]]:
    """All rows."""
    with rig.folder_in_memory() as folder, rig.store(progress, STORE_MBIT) as store, ExitStack() as stack:
        store.create_bucket("bench")
        store.put_many("bench", ((f"object{number}", BODY) for number in range(OBJECTS)))
        with rig.workers(folder / "workers", store, "bench", count=2) as cluster:
            cluster.load_all()
            links = [stack.enter_context(Throttle(worker.data_port, LINK_RATE)) for worker in cluster.workers]
            through = zip(cluster.workers, links, strict=True)
            cluster.publish([replace(worker.member, data_port=link.port) for worker, link in through])
            scene = _Scene(cluster, list(versions(cluster.wait_for_index()).values()), links)
            p99: dict[str, list[float]] = {"direct": [], "one": []}
            totals: dict[str, list[float]] = {"direct": [], "all": []}

            def direct() -> float:
                seconds = scene.direct()
                p99["direct"].append(_p99(seconds))
                totals["direct"].append(sum(seconds) / READERS)
                return 0.0

            def one() -> float:
                p99["one"].append(_p99(scene.slowed(1, SLOW)))
                return 0.0

            def everybody() -> float:
                totals["all"].append(sum(scene.slowed(SLOW, SLOW)) / READERS)
                return 0.0

            interleaved({"direct": direct, "one": one, "all": everybody})
        rates = [_vanished(store, folder / f"limited{number}") for number in range(ROUNDS)]
    rows = [
        compared("p99 of a read, one of two workers at 1 %", "s", p99["one"], "direct", p99["direct"], "<= 1.3x"),
        compared("time for all reads, both workers at 1 %", "s", totals["all"], "direct", totals["direct"], "<= 1.1x"),
        compared(
            "bytes from the store while all workers are gone", "MB/s", rates, "budget, a tenth of the mount's limit",
            [DIRECT * STORE_MBIT / 8] * ROUNDS, "<= 1.0x",
        ),
    ]  # fmt: skip
    reads = 2 * ROUNDS * (READS + WARM)
    return rows, [
        f"store behind {STORE_MBIT} Mbit/s (htb); workers behind a relay of {LINK_RATE * 8 // 10**6}, then of 1 %",
        f"{READS} reads of 1 MiB by {READERS} threads a run, after {WARM} by the same client at full rates",
        f"{scene.hedges} hedges for {reads:,} reads",
        "workers gone: the mount's limit is the store's link; 8 threads read 256 KiB each for 10 s; by the store's log",
    ]


def _p99(ascending: list[float]) -> float:
    return ascending[int(0.99 * len(ascending))]


def _vanished(store: Store, folder: Path) -> float:
    """Million bytes per second that readers take from the store once all workers are gone, by its own log."""
    with rig.workers(folder, store, "bench", count=2) as cluster:
        mount = replace(cluster.document.mounts[0], limits=SourceLimits(bandwidth=STORE_MBIT * 125_000))
        cluster.document = replace(cluster.document, mounts=(mount,))
        scene = _Scene(cluster, list(versions(cluster.wait_for_index()).values()), [])
        with scene.client() as (reader, _), ThreadPoolExecutor(8) as pool:
            for worker in cluster.workers:
                worker.close()
            mark, begin = store.mark(), time.monotonic()

            def read_on(first: int) -> None:
                offset = first * CHUNK_SIZE
                while time.monotonic() < begin + 10:
                    reader.read(scene.objects[0], offset, 256 * 1024)
                    offset = (offset + 256 * 1024) % len(BODY)

            list(pool.map(read_on, range(8)))
            seconds = time.monotonic() - begin
        return sum(one.bytes_sent for one in store.log_since(mark) if one.key) / seconds / 1e6
