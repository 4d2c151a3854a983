"""Read through: how long a reader waits for the first bytes of an object that nobody has read before."""

import os
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from forebay.source.opening import open_source
from forebay_bench import rig
from forebay_bench.results import Row, compared
from forebay_protocol.dataset import Credentials
from forebay_protocol.errors import NotCached
from forebay_protocol.keys import BLOCK_SIZE, ObjectVersion
from forebay_protocol.wire import Flag, ReadRequest
from testkit.progress import Progress
from testkit.sample_cluster import versions
from testkit.store import Store
from testkit.waiting import eventually
from testkit.worker_processes import MIB

ROUNDS = 3
_SIZES = (("64 KiB objects", "small", 64 * 1024, 300), ("4 MiB objects", "large", 4 * MIB, 100))


def measure(progress: Progress) -> tuple[list[Row], list[str]]:
    """All rows."""
    rows: list[Row] = []
    with rig.folder_in_memory() as folder, rig.store(progress) as store:
        for name, bucket, size, count in _SIZES:
            store.create_bucket(bucket)
            body = os.urandom(size)
            store.put_many(bucket, ((f"{number:04}", body) for number in range(count)))
            rows += _of_one_size(name, bucket, store, folder, progress)
    return rows, [
        (
            "the first 64 KiB of each object, one after the other; every object is read cold, once, by each side; a "
            "read through the worker begins when the object before is in its tier: one read is measured, not the fill"
        )
    ]


def _of_one_size(name: str, bucket: str, store: Store, folder: Path, progress: Progress) -> list[Row]:
    keys = Credentials(access_key_id=store.access_key, secret_access_key=store.secret_key)
    buffer = memoryview(bytearray(BLOCK_SIZE))
    with rig.workers(folder / bucket, store, bucket) as cluster:
        worker = cluster.workers[0]
        snapshot = worker.snapshot()
        assert snapshot is not None
        with closing(snapshot):
            objects = list(versions(snapshot).values())
        share = len(objects) // ROUNDS
        source = open_source(cluster.document.mounts[0], keys)
        with closing(source), closing(worker.connect()) as connection:

            def through(one: ObjectVersion) -> None:
                connection.read_into(ReadRequest(0, one, 0, BLOCK_SIZE), buffer)

            def kept(one: ObjectVersion) -> bool:
                try:
                    connection.read_into(ReadRequest(0, one, 0, BLOCK_SIZE, Flag.CACHED_ONLY), buffer)
                except NotCached:
                    return False
                return True

            def settled(one: ObjectVersion) -> None:
                eventually(lambda: kept(one), timeout=30, interval=0.005, what="the object is in the worker's tier")

            def direct(one: ObjectVersion) -> None:
                source.read_into(one.key, one.version, one.size, 0, buffer)

            ours: list[list[float]] = []
            theirs: list[list[float]] = []
            for number in range(ROUNDS):
                part = objects[number * share : (number + 1) * share]
                theirs.append(_milliseconds(direct, part))
                ours.append(_milliseconds(through, part, settled))
    rows = [
        compared(
            f"{name}, {title}", "ms", [quantile(one) for one in ours], "direct GET",
            [quantile(one) for one in theirs], "<= 1.2x",
        )
        for title, quantile in (("p50", statistics.median), ("p99", _p99))
    ]  # fmt: skip
    progress.say(f"{name}: p50 {rows[0].ratio:.2f}x, p99 {rows[1].ratio:.2f}x")
    return rows


def _milliseconds(
    read: Callable[[ObjectVersion], None],
    objects: list[ObjectVersion],
    after: Callable[[ObjectVersion], None] = lambda _: None,
) -> list[float]:
    took: list[float] = []
    for one in objects:
        start = time.perf_counter()
        read(one)
        took.append((time.perf_counter() - start) * 1000)
        after(one)
    return took


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]
