"""Disks that are full, read-only or broken: reads go through, the status says why, and all is well when the disk is."""

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from forebay_protocol.keys import ChunkKey, ObjectVersion
from forebay_worker.metrics import Metrics
from forebay_worker.settings import TierSettings
from forebay_worker.store import tier as tier_module
from forebay_worker.store.sparse import SparseFiles
from forebay_worker.store.tiered import ChunkStore
from testkit.chunk_store import BIG, MIB, body, get, put, small
from testkit.disks import Disk
from testkit.waiting import eventually


def problem(store: ChunkStore) -> str:
    """Why the tier is not in order; empty when it is."""
    found = store.tier_statuses()[0].problem
    return "" if found is None else found.reason


def fill(path: Path) -> None:
    """A file that takes all that is left."""
    with path.open("wb") as file, suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(65536))
    seen = os.statvfs(path)
    assert seen.f_bavail * seen.f_frsize < MIB


def until_mended(store: ChunkStore) -> None:
    """The tier is measured, as the scrub does it, until it takes chunks again."""

    def look() -> str:
        store.measure()
        return problem(store)

    eventually(look, timeout=20, interval=0.1, what="the tier works again", until=lambda reason: not reason)


@pytest.fixture
def store(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChunkStore]:
    """A store with one tier on the disk, which rests for only half a second after a failed write."""
    monkeypatch.setattr(tier_module, "SUSPENSION", 0.5)
    metrics = Metrics()
    opened = ChunkStore((TierSettings(medium="SSD", paths=(disk.path / "chunks",), quota=64 * MIB),), "uid", metrics)
    yield opened
    opened.close()


def test_a_full_disk_is_read_through_and_used_again_when_there_is_room(disk: Disk, store: ChunkStore) -> None:
    """Somebody else fills it: what is cached is served, what is new is not kept, eviction still frees room."""
    assert put(store, BIG, 0)
    filler = disk.path / "filler"
    fill(filler)

    assert not put(store, BIG, 1)

    assert problem(store) == "TierWriteFailed"
    assert store.tier_statuses()[0].capacity_bytes == 0
    assert get(store, BIG, 0) == body(BIG, 0)
    assert get(store, BIG, 1) is None
    lease = store.lease(ChunkKey(BIG.object_id, 0))
    assert lease is not None
    lease.damaged()
    lease.release()
    assert os.statvfs(disk.path).f_bavail * os.statvfs(disk.path).f_frsize >= 4 * MIB, "room is freed on a full disk"
    filler.unlink()
    until_mended(store)
    assert put(store, BIG, 1)
    assert get(store, BIG, 1) == body(BIG, 1)


def test_a_disk_that_became_read_only_serves_what_it_has(disk: Disk, store: ChunkStore) -> None:
    """As the kernel makes it after an error; a restart on the mended disk finds what was there."""
    put(store, BIG, 0)
    disk.abort()

    assert not put(store, BIG, 1)

    assert problem(store) == "TierWriteFailed"
    assert get(store, BIG, 0) == body(BIG, 0)
    store.measure()
    assert not put(store, BIG, 2)
    store.close()
    disk.unmount()
    disk.mount()
    tier = TierSettings(medium="SSD", paths=(disk.path / "chunks",), quota=64 * MIB)
    with closing(ChunkStore((tier,), "uid", Metrics())) as mended:
        assert problem(mended) == ""
        assert get(mended, BIG, 0) == body(BIG, 0)
        assert put(mended, BIG, 1)


def test_a_read_only_disk_at_the_start_is_left_out(disk: Disk) -> None:
    """The worker starts all the same."""
    tier = TierSettings(medium="SSD", paths=(disk.path / "chunks",), quota=64 * MIB)
    ChunkStore((tier,), "uid", Metrics()).close()
    disk.read_only(on=True)

    store = ChunkStore((tier,), "uid", Metrics())

    assert problem(store) == "TierNotUsable"
    assert not put(store, small(1))
    disk.read_only(on=False)
    until_mended(store)
    assert put(store, small(1))
    store.close()


def test_a_disk_that_cannot_be_read_is_given_up(disk: Disk, store: ChunkStore) -> None:
    """Its sectors are gone: EIO for every read. No wrong byte is served, and the tier is out after a few."""
    objects = [ObjectVersion("uid", "m", f"{number}", "v", 4 * MIB) for number in range(8)]
    for one in objects:
        assert put(store, one)
    for one in objects:
        with SparseFiles(disk.path / "chunks").path(one.object_id).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    os.truncate(disk.image, 1 * MIB)

    for one in objects:
        store.check(ChunkKey(one.object_id, 0))

    assert [get(store, one) for one in objects] == [None] * 8
    assert problem(store) == "TierNotUsable"
    store.measure()
    put(store, small(1))
    assert get(store, small(1)) in (None, body(small(1), 0))
