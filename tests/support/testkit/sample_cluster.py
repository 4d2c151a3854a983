"""Objects with awkward names and all sizes, and what tests do with workers that cache them."""

import os
from collections.abc import Callable

from forebay.index import Snapshot
from forebay_protocol.dataset import DatasetDocument
from forebay_protocol.keys import CHUNK_SIZE, ObjectVersion
from testkit.buckets import Bucket
from testkit.worker_processes import WorkerCluster

OBJECTS = {
    "model/big.safetensors": os.urandom(3 * CHUNK_SIZE + 12345),
    "model/one chunk": os.urandom(CHUNK_SIZE),
    "ünï/çødé %2F+.txt": "ü".encode() * 5000,
    "empty": b"",
    **{f"small/{number:03}": os.urandom(100 + number) for number in range(60)},
}
TOTAL = sum(map(len, OBJECTS.values()))

Make = Callable[..., WorkerCluster]


def document(bucket: Bucket, endpoint: str, refresh: float | None = 2.0) -> DatasetDocument:
    """The whole bucket as a dataset."""
    mount = bucket.mount(endpoint=endpoint)
    return DatasetDocument(uid="uid-1", namespace="team", name="data", mounts=(mount,), refresh_seconds=refresh)


def versions(snapshot: Snapshot) -> dict[str, ObjectVersion]:
    """All objects of an index, by key."""
    return {entry.key: snapshot.object(entry) for _, entry in snapshot.files()}


def read_all(cluster: WorkerCluster, snapshot: Snapshot) -> None:
    """Read everything through every worker and compare."""
    for one in versions(snapshot).values():
        for worker in cluster.workers:
            assert worker.read(one) == OBJECTS[one.key], one.key
