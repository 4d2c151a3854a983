"""Chunks with bytes of their own, put into and read back from a store as a worker does it."""

import os
from pathlib import Path

from forebay_protocol.keys import CHUNK_SIZE, ChunkKey, ObjectVersion
from forebay_worker.metrics import Metrics
from forebay_worker.settings import TierSettings
from forebay_worker.store.checksums import block_sums
from forebay_worker.store.sparse import SparseFiles
from forebay_worker.store.tiered import ChunkStore, Judgement

MIB = 1024 * 1024
BIG = ObjectVersion("uid", "m", "big\udce9", "v", 3 * CHUNK_SIZE)


def always_useful(_: ObjectVersion, __: int) -> Judgement:
    """Every chunk belongs to the current generation and to this worker."""
    return Judgement(current=True, owned=True)


def small(number: int, version: str = "v") -> ObjectVersion:
    """An object of one small chunk."""
    return ObjectVersion("uid", "m", f"small/{number}", version, 100_000)


def body(one: ObjectVersion, number: int) -> bytes:
    """The bytes of a chunk, its own for every one."""
    span = one.chunk_span(number)
    return (f"{one.object_id}{number}".encode() * (span.length // 60))[: span.length].ljust(span.length, b"x")


def put(store: ChunkStore, one: ObjectVersion, number: int = 0) -> bool:
    """Store a chunk's bytes."""
    data = memoryview(body(one, number))
    return store.put(one, number, data, block_sums(data), always_useful)


def get(store: ChunkStore, one: ObjectVersion, number: int = 0) -> bytes | None:
    """Read a chunk back as a server does."""
    lease = store.lease(ChunkKey(one.object_id, number))
    if lease is None:
        return None
    try:
        return os.pread(lease.fd, lease.length, lease.offset) if lease.plain else lease.read(0, lease.length)
    finally:
        lease.release()


class Folder:
    """A tier's folder on which stores are opened one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store: ChunkStore | None = None

    def open(self, *, quota: int = 64 * MIB, dataset: str = "uid") -> ChunkStore:
        """Close the last store and open a new one, as a restart does."""
        if self.store is not None:
            self.store.close()
        tier = TierSettings(medium="SSD", paths=(self.path,), quota=quota)
        self.store = ChunkStore((tier,), dataset, Metrics())
        return self.store

    def file(self, one: ObjectVersion) -> Path:
        """An object's sparse file."""
        return SparseFiles(self.path).path(one.object_id)
