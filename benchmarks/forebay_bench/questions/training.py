"""Three shuffled epochs over twice what the cache holds, through a real worker: beside the ideal and plain LRU."""

import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from cachesim.policies import Lru
from cachesim.traces import Trace, epochs
from forebay.pool import ConnectionPool
from forebay.reader import ChunkReader
from forebay.ring import RingHolder
from forebay_bench import rig
from forebay_bench.results import Row, compared
from forebay_bench.runs import ROUNDS
from forebay_protocol import control
from forebay_protocol.keys import ObjectVersion, Span
from testkit.progress import Progress
from testkit.sample_cluster import versions
from testkit.store import Store
from testkit.worker_processes import WorkerCluster

OBJECTS, LENGTH = 2048, 128 * 1024
CAPACITY = OBJECTS // 2
EPOCHS = 3
READERS = 8


@dataclass(frozen=True, slots=True)
class _Run:
    """Shares of the bytes read in the epochs after the first that came from the cache."""

    by_worker: float
    by_store: float
    lru: float


def measure(progress: Progress) -> tuple[list[Row], list[str]]:
    """All rows."""
    runs: list[_Run] = []
    with rig.folder_in_memory() as folder, rig.store(progress, None) as store:
        store.create_bucket("bench")
        body = os.urandom(LENGTH)
        store.put_many("bench", ((f"{number:04}", body) for number in range(OBJECTS)), threads=4)
        for number in range(ROUNDS):
            place = folder / "workers"
            with rig.workers(place, store, "bench", quota=CAPACITY * LENGTH) as cluster:
                runs.append(_train(cluster, store, epochs(OBJECTS, EPOCHS, seed=number)))
            shutil.rmtree(place)
            progress.say(f"hit ratio {runs[-1].by_worker:.3f}, by the store {runs[-1].by_store:.3f}")
    ideal = [CAPACITY / OBJECTS] * ROUNDS
    ours, stores = [run.by_worker for run in runs], [run.by_store for run in runs]
    rows = [
        compared("hit ratio, the worker's counters", "of bytes", ours, "capacity / size", ideal, ">= 0.9x"),
        compared("not fetched again, the store's log", "of bytes", stores, "capacity / size", ideal, ">= 0.9x"),
        compared("hit ratio, beside recency", "of bytes", ours, "plain LRU", [run.lru for run in runs]),
    ]
    return rows, [
        (
            f"{EPOCHS} epochs over {OBJECTS:,} objects of {LENGTH // 1024} KiB, each in an order of its own, {READERS} "
            f"readers through the SDK; tier of {CAPACITY * LENGTH // 2**20} MiB; the first epoch fills it, not counted"
        ),
        "plain LRU is simulated on the order in which the readers asked, with the same capacity",
    ]


def _train(cluster: WorkerCluster, store: Store, trace: Trace) -> _Run:
    worker = cluster.workers[0]
    objects = list(versions(cluster.wait_for_index()).values())
    holder = RingHolder(worker.token, lambda: [(worker.address, worker.control_port)])
    if not holder.refresh():
        raise RuntimeError("the worker gives no ring")
    lru = Lru(CAPACITY)
    with closing(ConnectionPool(worker.token)) as pool, ThreadPoolExecutor(READERS) as readers:
        job = _Job(ChunkReader(holder, pool), objects)
        list(readers.map(job.read, trace[:OBJECTS]))
        before, mark = _served(cluster), store.mark()
        list(readers.map(job.read, trace[OBJECTS:]))
        after = _served(cluster)
    for number in job.asked[:OBJECTS]:
        lru.read(number)
    hits = [lru.read(number) for number in job.asked[OBJECTS:]]
    fetched = sum(one.bytes_sent for one in store.log_since(mark) if one.key)
    hit, miss = (new - old for new, old in zip(after, before, strict=True))
    return _Run(
        by_worker=hit / (hit + miss), by_store=1 - fetched / (len(hits) * LENGTH), lru=sum(hits) / len(hits)
    )  # fmt: skip


class _Job:
    """Readers of one training job; ``asked`` is the order in which they asked."""

    def __init__(self, reader: ChunkReader, objects: list[ObjectVersion]) -> None:
        self.asked: Trace = []
        self._reader, self._objects = reader, objects
        self._buffers = threading.local()

    def read(self, number: int) -> None:
        buffer = getattr(self._buffers, "view", None)
        if buffer is None:
            buffer = self._buffers.view = memoryview(bytearray(LENGTH))
        self.asked.append(number)
        self._reader.read_into(self._objects[number], Span(0, LENGTH), buffer)


def _served(cluster: WorkerCluster) -> tuple[float, float]:
    """Bytes that the worker has served: hits, misses."""
    text = cluster.workers[0].call("GET", control.METRICS)[1].decode()

    def total(name: str) -> float:
        return sum(float(value) for value in re.findall(rf"^{name}_total{{.*}} (.+)$", text, re.MULTILINE))

    return total("forebay_worker_hit_bytes"), total("forebay_worker_miss_bytes")
