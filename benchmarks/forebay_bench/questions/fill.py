"""Cold fill: from the store to verified in a memory tier, beside ``rclone copy`` to the same place and a raw reader."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from forebay.source.opening import open_source
from forebay_bench import rclone, rig
from forebay_bench.results import Row, compared, measured
from forebay_bench.runs import best_of, interleaved, seconds
from forebay_protocol.control import LoadRequest, LoadState
from forebay_protocol.dataset import Credentials
from forebay_protocol.keys import CHUNK_SIZE
from testkit.progress import Progress
from testkit.sample_cluster import versions
from testkit.store import Store
from testkit.worker_processes import MIB, WorkerCluster

KIB = 1024
SMALL_COUNT = 20_000
FETCHERS = 16
_BUCKETS = (
    ("16 objects of 64 MiB", "many", 16, 64 * MIB),
    ("one object of 1 GiB", "one", 1, 1024 * MIB),
)


def measure(progress: Progress) -> tuple[list[Row], list[str]]:
    """All rows."""
    rows: list[Row] = []
    notes = ["1 GiB each instead of 4 and 2 GiB: store, tier and rclone's copy share this machine's memory"]
    with rig.folder_in_memory() as folder, rig.store(progress) as store:
        for name, bucket, count, size in _BUCKETS:
            store.create_bucket(bucket)
            body = os.urandom(size)
            store.put_many(bucket, ((f"{number:05}", body) for number in range(count)), threads=2)
            rows += _large(name, store, bucket, folder, notes, progress)
            store.delete_bucket(bucket)
        rows += _small(store, folder, notes, progress)
    return rows, notes


def _large(name: str, store: Store, bucket: str, folder: Path, notes: list[str], progress: Progress) -> list[Row]:
    chosen = _best(rclone.LARGE_FLAGS, store, bucket, folder, progress)
    cpu: list[float] = []
    found = interleaved({
        "rclone": partial(_rclone_rate, rclone.LARGE_FLAGS[chosen], store, bucket, folder, progress),
        "forebay": partial(_forebay_rate, store, bucket, folder, cpu),
        "raw": partial(_raw_rate, store, bucket, folder),
    })  # fmt: skip
    notes.append(f"{name}: rclone with {chosen}")
    rates = {key: [value / 1e6 for value in values] for key, values in found.items()}
    rows = [
        compared(f"{name}, cold to verified", "MB/s", rates["forebay"], "rclone copy", rates["rclone"], ">= 1.2x"),
        compared(
            f"{name}, cold to verified", "MB/s", rates["forebay"], "raw parallel reader", rates["raw"], ">= 0.75x"
        ),
        measured(f"{name}, CPU of the worker for each GiB filled", "s", cpu, "<= 1.0 s"),
    ]
    progress.say(f"{name}: {rows[0].ratio:.2f}x rclone, {rows[1].ratio:.2f}x raw")
    return rows


def _small(store: Store, folder: Path, notes: list[str], progress: Progress) -> list[Row]:
    name = f"{SMALL_COUNT:,} objects of 16 KiB"
    store.create_bucket("small")
    body = os.urandom(16 * KIB)
    store.put_many("small", ((f"{n // 1000:02}/{n:05}", body) for n in range(SMALL_COUNT)), threads=4)
    chosen = _best(rclone.SMALL_FLAGS, store, "small", folder, progress)
    found = interleaved({
        "rclone": partial(_rclone_rate, rclone.SMALL_FLAGS[chosen], store, "small", folder, progress),
        "forebay": partial(_forebay_rate, store, "small", folder, []),
    })  # fmt: skip
    notes.append(f"{name}: rclone with {chosen}; {FETCHERS} requests at once for both")
    rates = {key: [value / (16 * KIB) for value in values] for key, values in found.items()}
    row = compared(
        f"{name}, cold to verified", "objects/s", rates["forebay"], "rclone copy", rates["rclone"], ">= 1.5x"
    )  # fmt: skip
    progress.say(f"{name}: {row.ratio:.2f}x rclone")
    return [row]


def _best(flags: dict[str, tuple[str, ...]], store: Store, bucket: str, folder: Path, progress: Progress) -> str:
    def rate(one: tuple[str, ...]) -> Callable[[], float]:
        return lambda: _rclone_rate(one, store, bucket, folder, progress)

    return best_of({name: rate(one) for name, one in flags.items()})


def _rclone_rate(flags: tuple[str, ...], store: Store, bucket: str, folder: Path, progress: Progress) -> float:
    """Bytes per second."""
    return _bytes_of(bucket) / rclone.copy(store, bucket, folder / "copied", flags, progress)


def _forebay_rate(store: Store, bucket: str, folder: Path, cpu: list[float]) -> float:
    """Bytes per second from the load's beginning, with an index, until everything is present and verified."""
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        with rig.workers(place, store, bucket) as cluster:
            worker = cluster.workers[0]
            before = rig.cpu_seconds(worker.pid)
            took = seconds(partial(_load, cluster))
            size = worker.status().cached_bytes
            cpu.append((rig.cpu_seconds(worker.pid) - before) / (size / 2**30))
            if size != _bytes_of(bucket):
                raise RuntimeError(f"{size} bytes are cached after the load")
    finally:
        shutil.rmtree(place)
    return size / took


def _load(cluster: WorkerCluster) -> None:
    worker = cluster.workers[0]
    worker.load("fill", LoadRequest(paths=()))
    while worker.load("fill").state is not LoadState.COMPLETE:
        time.sleep(0.1)


def _raw_rate(store: Store, bucket: str, folder: Path) -> float:
    """Bytes per second of our own source into a few buffers, in as many threads as the worker has: the limit."""
    document = rig.document(store, bucket)
    keys = Credentials(access_key_id=store.access_key, secret_access_key=store.secret_key)
    with rig.workers(Path(tempfile.mkdtemp(dir=folder)), store, bucket) as cluster:
        snapshot = cluster.workers[0].snapshot()
    assert snapshot is not None
    with closing(snapshot), closing(open_source(document.mounts[0], keys)) as source:
        objects = versions(snapshot).values()
        buffers = threading.local()

        def read(key: str, version: str, size: int, offset: int) -> None:
            if not hasattr(buffers, "one"):
                buffers.one = memoryview(bytearray(CHUNK_SIZE))
            source.read_into(key, version, size, offset, buffers.one[: min(CHUNK_SIZE, size - offset)])

        def everything() -> None:
            with ThreadPoolExecutor(FETCHERS) as pool:
                pieces = [
                    pool.submit(read, one.key, one.version, one.size, number * CHUNK_SIZE)
                    for one in objects for number in one.chunks()
                ]  # fmt: skip
            for piece in pieces:
                piece.result()

        return _bytes_of(bucket) / seconds(everything)


def _bytes_of(bucket: str) -> int:
    if bucket == "small":
        return SMALL_COUNT * 16 * KIB
    return next(count * size for _, name, count, size in _BUCKETS if name == bucket)
