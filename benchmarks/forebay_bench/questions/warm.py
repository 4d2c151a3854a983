"""Readers of what the workers hold while the store is slow, and what a worker takes when nobody reads."""

import os
from contextlib import closing
from functools import partial

from forebay_bench import readers, rig
from forebay_bench.results import Row, compared, measured
from forebay_bench.runs import interleaved
from forebay_protocol.dataset import Credentials
from forebay_protocol.keys import ObjectVersion
from testkit.progress import Progress
from testkit.sample_cluster import versions
from testkit.worker_processes import MIB, WorkerCluster

SIZE, READERS, MBIT = 16 * MIB, 8, 100
_WORKERS = 2


def measure(progress: Progress) -> tuple[list[Row], list[str]]:
    """All rows."""
    with rig.folder_in_memory() as folder, rig.store(progress, None) as store:
        store.create_bucket("bench")
        store.put_bytes("bench", "model", os.urandom(SIZE))
        keys = Credentials(access_key_id=store.access_key, secret_access_key=store.secret_key)
        with rig.workers(folder / "warm", store, "bench", count=_WORKERS) as cluster:
            idle = _resident(cluster)
            cluster.load_all(timeout=60)
            store.set_rate(MBIT)
            one = _model(cluster)
            token = cluster.workers[0].token()
            through = readers.through_workers(one, cluster.publish(), token, cluster.document, keys)
            direct = readers.directly(one, cluster.document, keys)
            found = interleaved({
                "direct": partial(readers.last_of, READERS, one, direct),
                "forebay": partial(readers.last_of, READERS, one, through),
            })  # fmt: skip
            after = _resident(cluster)
    rows = [
        compared("8 readers directly, beside the cache", "s", found["direct"], "forebay", found["forebay"], ">= 8x"),
        measured("resident memory of a worker before its first read", "MiB", idle, "<= 100 MiB"),
        measured("resident memory of a worker after the last read", "MiB", after),
    ]
    progress.say(f"warm, throttled store: {rows[0].ratio:.1f}x; a worker at rest has {rows[1].value:.0f} MiB")
    return rows, [
        (
            f"{READERS} readers, {SIZE // MIB} MiB held by {_WORKERS} workers, the store's link at {MBIT} Mbit/s, a "
            "tenth of what it has when readers start cold"
        ),
    ]


def _resident(cluster: WorkerCluster) -> list[float]:
    return [worker.resident_bytes() / MIB for worker in cluster.workers]


def _model(cluster: WorkerCluster) -> ObjectVersion:
    snapshot = cluster.workers[0].snapshot()
    assert snapshot is not None
    with closing(snapshot):
        return versions(snapshot)["model"]
