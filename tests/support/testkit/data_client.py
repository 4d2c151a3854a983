"""A reader as mounts have one, in this process: ring, pool, and the store as the last resort."""

from collections.abc import Iterator
from contextlib import contextmanager

from forebay.direct import DirectSources
from forebay.pool import ConnectionPool
from forebay.reader import ChunkReader
from forebay.ring import RingHolder
from testkit.worker_processes import WorkerCluster


@contextmanager
def client_of(cluster: WorkerCluster) -> Iterator[ChunkReader]:
    """A reader of the cluster's dataset; it learns the ring from the workers."""
    worker = cluster.workers[0]

    def seeds() -> list[tuple[str, int]]:
        return [(one.member.address, one.member.control_port) for one in cluster.workers]

    ring = RingHolder(worker.token, seeds, on_change=lambda newer: pool.retain(newer.members))
    pool = ConnectionPool(worker.token, observer=lambda _, head: ring.saw(head.epoch))
    direct = DirectSources(cluster.document, dict(cluster.credentials))
    assert ring.refresh()
    ring.start()
    try:
        yield ChunkReader(ring, pool, direct)
    finally:
        ring.close()
        pool.close()
        direct.close()
