"""Several tiers and folders on real files: moves, leases of files, disks that fail and come back."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from forebay_protocol.keys import CHUNK_SIZE, ChunkKey, ObjectVersion
from forebay_worker.core import events as ev
from forebay_worker.metrics import Metrics
from forebay_worker.settings import TierSettings
from forebay_worker.store.holders import LEASE_SECONDS, Holders
from forebay_worker.store.sparse import SparseFiles
from forebay_worker.store.tiered import ChunkStore
from testkit.chunk_store import BIG, MIB, body, get, put, small

KEY = ChunkKey(BIG.object_id, 0)


class Stores:
    """Opens stores on the same folders, one after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metrics = Metrics()
        self._open = ExitStack()

    def tier(self, medium: str, *names: str, quota: int = 64 * MIB, reserve: float = 0.0) -> TierSettings:
        """A tier in folders of these names."""
        return TierSettings(
            medium=medium, paths=tuple(self.root / name for name in names), quota=quota, reserve=reserve
        )

    def open(self, *tiers: TierSettings) -> ChunkStore:
        """Close the last store and open the next, as a restart does."""
        self.close()
        store = ChunkStore(tiers, "uid", self.metrics)
        self._open.callback(store.close)
        return store

    def close(self) -> None:
        """Close what is open."""
        self._open.close()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """No store is open yet."""
    made = Stores(tmp_path)
    yield made
    made.close()


def path_of(root: Path, one: ObjectVersion) -> Path:
    """An object's file in a folder."""
    return SparseFiles(root).path(one.object_id)


def test_a_chunk_that_is_read_often_moves_to_the_fast_tier(stores: Stores) -> None:
    """Its bytes are copied and verified, the old copy goes, a reader of the old copy finishes, a restart finds it."""
    tiers = stores.tier("Memory", "fast", quota=16 * MIB), stores.tier("SSD", "slow")
    store = stores.open(*tiers)
    for number in range(3):
        put(store, BIG, number)
    hot = ObjectVersion("uid", "m", "hot", "v", CHUNK_SIZE)
    assert put(store, hot)
    assert path_of(stores.root / "slow", hot).exists()
    reader = store.lease(KEY)
    assert reader is not None
    for _ in range(6):
        get(store, hot)
        for number in (1, 2):
            get(store, BIG, number)

    while store.move_one():
        pass
    assert os.pread(reader.fd, 10, reader.offset) == body(BIG, 0)[:10], "the copy in use stays"
    reader.release()
    for one, number in ((BIG, 1), (BIG, 2), (hot, 0)):
        get(store, one, number)
    while store.move_one():
        pass

    assert path_of(stores.root / "fast", hot).exists()
    assert not path_of(stores.root / "slow", hot).exists()
    assert path_of(stores.root / "slow", BIG).exists(), "the coldest chunk made room"
    store = stores.open(*tiers)
    assert get(store, hot) == body(hot, 0)
    assert [get(store, BIG, number) for number in range(3)] == [body(BIG, number) for number in range(3)]


def test_a_damaged_chunk_does_not_move(stores: Stores) -> None:
    """Only bytes that match their checksums are copied."""
    store = stores.open(stores.tier("Memory", "fast", quota=16 * MIB), stores.tier("SSD", "slow"))
    for number in range(3):
        put(store, BIG, number)
    hot = ObjectVersion("uid", "m", "hot", "v", CHUNK_SIZE)
    put(store, hot)
    for _ in range(4):
        get(store, hot)
        get(store, BIG, 1)
    with path_of(stores.root / "slow", hot).open("r+b") as file:
        file.write(b"\x00")

    while store.move_one():
        pass

    assert store.corrupt_chunks == 1
    assert get(store, hot) is None


def test_a_leased_file_keeps_its_bytes_and_its_room(stores: Stores) -> None:
    """Others drive its object out of the cache: the holder's descriptor still reads all, until it ends the lease."""
    store = stores.open(stores.tier("SSD", "one", quota=16 * MIB))
    for number in range(3):
        put(store, BIG, number)
    held = store.holders.lease(BIG, 0)
    assert held is not None
    others = [ObjectVersion("uid", "m", f"other/{number}", "v", CHUNK_SIZE) for number in range(6)]

    for one in others:
        put(store, one)

    assert get(store, BIG, 0) is None
    assert not path_of(stores.root / "one", BIG).exists()
    assert [os.pread(held.fd, CHUNK_SIZE, n * CHUNK_SIZE) == body(BIG, n) for n in range(3)] == [True] * 3
    assert store.tier_statuses()[0].used_bytes >= 3 * CHUNK_SIZE, "the disk is not free yet"
    os.close(held.fd)
    store.holders.end(held.name)
    assert store.tier_statuses()[0].used_bytes <= CHUNK_SIZE
    assert put(store, BIG, 0)


def test_leases_survive_a_restart(stores: Stores) -> None:
    """A named file is not punched, the room of an unlinked one counts, and both end for holders that are dead."""
    tier = stores.tier("SSD", "one", quota=32 * MIB)
    store = stores.open(tier)
    for number in range(3):
        put(store, BIG, number)
    named = ObjectVersion("uid", "m", "named", "v", CHUNK_SIZE)
    put(store, named)
    first, second = store.holders.lease(BIG, 0), store.holders.lease(named, 0)
    assert first is not None
    assert second is not None
    lease = store.lease(KEY)
    assert lease is not None
    lease.damaged()
    lease.release()
    assert not path_of(stores.root / "one", BIG).exists()

    store = stores.open(tier)

    assert store.held_bytes == CHUNK_SIZE
    assert store.tier_statuses()[0].used_bytes == 4 * CHUNK_SIZE
    assert store.holders.renew(first.name)
    assert store.holders.renew(second.name)
    lease = store.lease(ChunkKey(named.object_id, 0))
    assert lease is not None
    lease.damaged()
    lease.release()
    assert os.pread(second.fd, CHUNK_SIZE, 0) == body(named, 0), "unlinked, not punched"
    for held in (first, second):
        os.close(held.fd)
        store.holders.end(held.name)
        assert not store.holders.renew(held.name)
    assert store.tier_statuses()[0].used_bytes == 0


def test_a_lease_that_nobody_renews_ends(stores: Stores) -> None:
    """A holder that died gives its room back after a term."""
    store, now = stores.open(stores.tier("SSD", "one")), [0.0]
    put(store, small(1))
    holders = Holders(store._folders, store.apply, lambda: now[0])
    held = holders.lease(small(1), 0)
    assert held is not None
    os.close(held.fd)
    now[0] = LEASE_SECONDS - 1
    holders.end_expired()
    assert holders.renew(held.name)

    now[0] = 2 * LEASE_SECONDS
    holders.end_expired()

    assert not holders.renew(held.name)


def test_objects_are_spread_over_folders_and_a_failed_one_is_taken_out(stores: Stores) -> None:
    """Its chunks are forgotten, the other one serves and takes the quota; when it works again its chunks are back."""
    tier = stores.tier("SSD", "a", "b", quota=32 * MIB)
    store = stores.open(tier)
    objects = [small(number) for number in range(40)]
    for one in objects:
        assert put(store, one)
    on_a = [one for one in objects if path_of(stores.root / "a", one).exists()]
    assert 8 < len(on_a) < 32
    (stores.root / "a").rename(stores.root / "away")
    (stores.root / "a").write_text("a disk that is gone")

    store.measure()

    assert not {one.object_id for one in on_a} & {key.object_id for key in store.present()}
    assert [get(store, one) is None for one in objects] == [one in on_a for one in objects]
    status = store.tier_statuses()[0]
    assert status.problem is not None
    assert status.problem.reason == "TierNotUsable"
    assert status.capacity_bytes == 32 * MIB
    assert put(store, on_a[0])
    (stores.root / "a").unlink()
    (stores.root / "away").rename(stores.root / "a")
    store.measure()
    assert all(get(store, one) == body(one, 0) for one in objects)
    assert store.tier_statuses()[0].problem is None
    assert stores.metrics.registry.get_sample_value("forebay_worker_tier_failures_total", {"tier": "SSD"}) == 1


def test_the_tier_shrinks_when_others_need_the_disk(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of the file system that is reserved stays free: chunks leave until it is."""
    total, others = 64 * MIB, [0]
    monkeypatch.setattr(SparseFiles, "room", lambda _: (total, total - others[0]))
    store = stores.open(stores.tier("SSD", "one", quota=32 * MIB, reserve=0.25))
    monkeypatch.setattr(SparseFiles, "room", lambda _: (total, total - others[0] - store.held_bytes))
    for number in range(3):
        put(store, BIG, number)
    put(store, ObjectVersion("uid", "m", "another", "v", 3 * CHUNK_SIZE), 0)
    store.measure()
    assert store.tier_statuses()[0].capacity_bytes == 32 * MIB
    assert store.held_bytes == 16 * MIB

    others[0] = 40 * MIB
    store.measure()

    assert store.held_bytes <= 8 * MIB
    status = store.tier_statuses()[0]
    assert status.problem is not None
    assert status.problem.reason == "DiskPressure"
    others[0] = 0
    store.measure()
    assert store.tier_statuses()[0].problem is None


def test_a_folder_whose_reads_fail_again_and_again_is_given_up(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a disk that answers EIO: chunks go one by one, then all; nothing of it is served."""
    store = stores.open(stores.tier("SSD", "one"))
    objects = [small(number) for number in range(10)]
    for one in objects:
        put(store, one)

    def fails(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(SparseFiles, "read", fails)
        for one in objects[:3]:
            store.check(ChunkKey(one.object_id, 0))

    assert [get(store, one) for one in objects] == [None] * 10
    assert store.tier_statuses()[0].problem is not None
    store.measure()
    assert [get(store, one) is not None for one in objects] == [False] * 2 + [True] * 8
    assert store.apply(ev.Idle()) == []
