"""Many readers who start together on one cold model behind a slow store, beside the same readers without a cache."""

import os
import shutil
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path

from forebay_bench import readers, rig
from forebay_bench.results import Row, compared, measured
from forebay_bench.runs import interleaved
from forebay_protocol.dataset import Credentials
from forebay_protocol.keys import ObjectVersion
from testkit.progress import Progress
from testkit.sample_cluster import versions
from testkit.store import Store
from testkit.worker_processes import MIB, WorkerCluster

COLD_SIZE, COLD_READERS, COLD_MBIT = 256 * MIB, 16, 1000
_WORKERS = 2


def measure(progress: Progress) -> tuple[list[Row], list[str]]:
    """All rows."""
    with rig.folder_in_memory() as folder, rig.store(progress) as store:
        store.create_bucket("cold")
        store.put_bytes("cold", "model", os.urandom(COLD_SIZE))
        rows = _cold(store, folder, progress)
    notes = [
        (
            f"cold: {COLD_READERS} readers with 4 requests each, {COLD_SIZE // MIB} MiB (a direct run of 1 GiB would "
            f"take over two minutes), {_WORKERS} workers, the store's link limited to {COLD_MBIT} Mbit/s by htb"
        ),
    ]
    return rows, notes


def _cold(store: Store, folder: Path, progress: Progress) -> list[Row]:
    store.set_rate(COLD_MBIT)
    origin: list[float] = []

    def cached() -> float:
        place = Path(tempfile.mkdtemp(dir=folder))
        try:
            with rig.workers(place, store, "cold", count=_WORKERS) as cluster:
                one, mark = _model(cluster), store.mark()
                took = readers.last_of(COLD_READERS, one, _through(cluster, one, store))
            sent = sum(request.bytes_sent for request in store.log_since(mark) if request.operation == "GetObject")
            origin.append(sent / COLD_SIZE)
        finally:
            shutil.rmtree(place)
        return took

    found = interleaved({"direct": _direct(store, "cold", COLD_READERS, folder), "forebay": cached})
    ideal = COLD_SIZE * 8 / (COLD_MBIT * 1e6)
    rows = [
        compared(
            "cold: last of 16 readers", "s", found["forebay"], "size / bandwidth", [ideal] * len(found["forebay"]),
            "<= 1.15x",
        ),
        compared("cold: direct, beside the cache", "s", found["direct"], "forebay", found["forebay"], ">= 10x"),
        measured("cold: bytes that the store's log shows, beside the size", "x", origin, "<= 1.00 x"),
    ]  # fmt: skip
    progress.say(f"cold fan-out: {rows[0].ratio:.2f}x ideal, direct {rows[1].ratio:.1f}x, origin {rows[2].value:.3f}x")
    return rows


def _direct(store: Store, bucket: str, count: int, folder: Path) -> partial[float]:
    place = Path(tempfile.mkdtemp(dir=folder))
    with rig.workers(place, store, bucket) as cluster:
        one = _model(cluster)
    return partial(readers.last_of, count, one, readers.directly(one, rig.document(store, bucket), _keys(store)))


def _model(cluster: WorkerCluster) -> ObjectVersion:
    snapshot = cluster.workers[0].snapshot()
    assert snapshot is not None
    with closing(snapshot):
        return versions(snapshot)["model"]


def _through(cluster: WorkerCluster, one: ObjectVersion, store: Store) -> readers.MakeReader:
    token = cluster.workers[0].token()
    return readers.through_workers(one, cluster.publish(), token, cluster.document, _keys(store))


def _keys(store: Store) -> Credentials:
    return Credentials(access_key_id=store.access_key, secret_access_key=store.secret_key)
