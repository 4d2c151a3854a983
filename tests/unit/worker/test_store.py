"""The chunk store on real files: what is written is there, also after a crash, and nothing else is."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typing_extensions import override

from forebay_protocol.keys import CHUNK_SIZE, ChunkKey, ObjectVersion
from forebay_worker.metrics import Metrics
from forebay_worker.settings import TierSettings
from forebay_worker.store.catalogue import FILE
from forebay_worker.store.checksums import block_sums, sums_of
from forebay_worker.store.sparse import SparseFiles
from forebay_worker.store.tier import StorageTier
from forebay_worker.store.tiered import ChunkStore
from testkit.chunk_store import BIG, MIB, Folder, always_useful, body, get, put, small


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """An empty tier."""
    made = Folder(tmp_path)
    yield made
    if made.store is not None:
        made.store.close()


def test_chunks_come_back_one_by_one(folder: Folder) -> None:
    """The middle chunk of an object alone: the others are not there, and its file is sparse."""
    store = folder.open()

    assert put(store, BIG, 1)

    assert get(store, BIG, 1) == body(BIG, 1)
    assert get(store, BIG, 0) is None
    assert folder.file(BIG).stat().st_blocks * 512 < 1.1 * CHUNK_SIZE
    assert store.cached_bytes == CHUNK_SIZE


def test_a_restart_is_warm_but_counts_only_what_is_verified(folder: Folder) -> None:
    """Chunks are there; they count after their first use."""
    store = folder.open()
    put(store, BIG, 0)
    put(store, small(1))

    store = folder.open()

    assert (store.cached_bytes, store.held_bytes) == (0, CHUNK_SIZE + 100_000)
    assert get(store, BIG, 0) == body(BIG, 0)
    assert store.cached_bytes == CHUNK_SIZE
    assert list(store.unverified()) == [ChunkKey(small(1).object_id, 0)]


def test_bytes_without_a_row_do_not_exist(folder: Folder) -> None:
    """What was written but not committed when the worker was killed is removed."""
    folder.open()
    SparseFiles(folder.path).write(ChunkKey(BIG.object_id, 0), memoryview(b"half"))

    store = folder.open()

    assert get(store, BIG, 0) is None
    assert not folder.file(BIG).exists()


def test_a_chunk_is_committed_after_its_bytes(folder: Folder) -> None:
    """A worker that is killed while it writes leaves no row: nothing in the catalogue says that the bytes are there."""

    class Watched(SparseFiles):
        @override
        def write(self, key: ChunkKey, data: memoryview) -> None:
            """Look into the catalogue as somebody does who opens it after a crash at this point."""
            with closing(sqlite3.connect(folder.path / FILE)) as crashed:
                seen.append(crashed.execute("SELECT count(*) FROM chunk").fetchone()[0])
            super().write(key, data)

    seen: list[int] = []
    folder.open().close()
    tier = StorageTier("SSD", folder.path, "uid")
    tier.files = Watched(folder.path)
    data = memoryview(body(BIG, 0))

    assert tier.write(BIG, 0, data, block_sums(data))

    assert seen == [0]
    assert [number for _, number, _, _ in tier.recover()] == [0]
    tier.close()


def test_a_row_without_bytes_does_not_count(folder: Folder) -> None:
    """As after a power failure: the file is gone or has a hole."""
    store = folder.open()
    put(store, BIG, 0)
    put(store, small(1))
    folder.file(BIG).unlink()
    os.truncate(folder.file(small(1)), 0)

    store = folder.open()

    assert store.held_bytes == 0
    assert get(store, BIG, 0) is None


def test_a_damaged_chunk_is_not_found_again(folder: Folder) -> None:
    """Its row goes with it, so that a restart does not bring it back."""
    store = folder.open()
    put(store, BIG, 0)
    put(store, BIG, 1)
    lease = store.lease(ChunkKey(BIG.object_id, 0))
    assert lease is not None
    lease.damaged()
    lease.release()
    SparseFiles(folder.path).write(ChunkKey(BIG.object_id, 0), memoryview(body(BIG, 0)))

    store = folder.open()

    assert [key.number for key in store.present()] == [1]


def test_bytes_that_rotted_while_down_are_never_served(folder: Folder) -> None:
    """The first use finds it; the chunk may be written anew."""
    store = folder.open()
    put(store, small(1))
    with folder.file(small(1)).open("r+b") as file:
        file.seek(70_000)
        file.write(b"\xff")

    store = folder.open()

    assert get(store, small(1)) is None
    assert store.corrupt_chunks == 1
    assert put(store, small(1))
    assert get(store, small(1)) == body(small(1), 0)


@pytest.mark.parametrize("damage", ["flip", "hole", "unlink", "truncate"])
def test_the_checks_of_the_scrub_find_damage(folder: Folder, damage: str) -> None:
    """Presence finds what is gone, contents find the rest."""
    store, key, file = folder.open(), ChunkKey(BIG.object_id, 0), folder.file(BIG)
    put(store, BIG, 0)
    match damage:
        case "flip":
            with file.open("r+b") as opened:
                opened.write(b"\x00\x01")
        case "hole":
            SparseFiles(folder.path).remove(key, CHUNK_SIZE, lambda: True)
        case "truncate":
            os.truncate(file, 100)
        case _:
            file.unlink()

    store.check_presence(key)
    if damage == "flip":
        store.check(key)

    assert (store.cached_bytes, store.held_bytes, store.corrupt_chunks) == (0, 0, 1)


def test_sound_chunks_pass_the_checks(folder: Folder) -> None:
    """Zeros are data, too."""
    store = folder.open()
    zeros = memoryview(bytes(100_000))
    store.put(small(1), 0, zeros, block_sums(zeros), always_useful)

    for key in store.present():
        store.check_presence(key)
        assert store.check(key) == 100_000

    assert store.cached_bytes == 100_000


def test_eviction_frees_the_disk_and_leaves_neighbours(folder: Folder) -> None:
    """Three chunks of one file and a stream of others: room is given back, what stays is right."""
    store = folder.open(quota=16 * MIB)
    for number in range(3):
        put(store, BIG, number)
    get(store, BIG, 2)
    for number in range(60):
        assert put(store, small(number))

    blocks = sum(file.stat().st_blocks * 512 for file in folder.path.glob("objects/*/*"))
    assert blocks <= 16 * MIB + 4096 * 64
    assert get(store, BIG, 0) is None
    assert get(store, BIG, 2) == body(BIG, 2)
    assert all(get(store, small(number)) in (None, body(small(number), 0)) for number in range(60))


def test_the_file_goes_with_its_last_chunk(folder: Folder) -> None:
    """No empty files are left."""
    store = folder.open()
    put(store, BIG, 0)
    put(store, BIG, 1)
    for number in range(2):
        assert folder.file(BIG).exists()
        lease = store.lease(ChunkKey(BIG.object_id, number))
        assert lease is not None
        lease.damaged()
        lease.release()

    assert not folder.file(BIG).exists()


def test_a_hole_is_exactly_one_chunk(tmp_path: Path) -> None:
    """Its neighbours in the file keep their bytes."""
    files = SparseFiles(tmp_path)
    for number in range(3):
        files.write(ChunkKey(BIG.object_id, number), memoryview(body(BIG, number)))

    files.remove(ChunkKey(BIG.object_id, 1), CHUNK_SIZE, lambda: True)

    whole = files.path(BIG.object_id).read_bytes()
    assert whole == body(BIG, 0) + bytes(CHUNK_SIZE) + body(BIG, 2)


def test_a_chunk_in_use_is_not_taken_away(folder: Folder) -> None:
    """Damage is noted at once, room is freed when the reader is done."""
    store = folder.open()
    put(store, BIG, 0)
    lease = store.lease(ChunkKey(BIG.object_id, 0))
    assert lease is not None

    lease.damaged()
    lease.damaged()

    assert store.lease(lease.key) is None
    assert store.corrupt_chunks == 1
    assert os.pread(lease.fd, 10, 0) == body(BIG, 0)[:10]
    lease.release()
    assert store.held_bytes == 0


def test_another_dataset_finds_an_empty_tier(folder: Folder) -> None:
    """Neither rows nor files are left."""
    put(folder.open(), BIG, 0)

    store = folder.open(dataset="another")

    assert (store.held_bytes, list(folder.path.glob("objects/*/*"))) == (0, [])


def test_a_catalogue_that_cannot_be_read_is_begun_anew(folder: Folder) -> None:
    """The cache is empty then, not broken."""
    put(folder.open(), BIG, 0)
    assert folder.store is not None
    folder.store.close()
    folder.store = None
    (folder.path / FILE).write_bytes(b"no database" * 1000)

    store = folder.open()

    assert store.held_bytes == 0
    assert put(store, BIG, 0)


def test_a_catalogue_that_is_damaged_inside_is_begun_anew(folder: Folder) -> None:
    """It opens, but its rows cannot be read."""
    store = folder.open()
    for number in range(300):
        put(store, small(number))
    store.close()
    folder.store = None
    whole = bytearray((folder.path / FILE).read_bytes())
    whole[8 * 4096 : -4096] = b"\xa5" * (len(whole) - 9 * 4096)
    (folder.path / FILE).write_bytes(whole)

    store = folder.open()

    assert put(store, BIG, 0)
    assert get(store, BIG, 0) == body(BIG, 0)
    store.measure()
    assert store.tier_statuses()[0].problem is None


def test_a_tier_that_cannot_be_opened_is_left_out_until_it_can(tmp_path: Path) -> None:
    """The other tier works meanwhile; what the first one held is found again when it is mended."""
    first, second = (TierSettings(medium=name, paths=(tmp_path / name,), quota=64 * MIB) for name in ("Memory", "SSD"))
    store = ChunkStore((first, second), "uid", Metrics())
    put(store, BIG, 0)
    store.close()
    first.paths[0].rename(tmp_path / "away")
    first.paths[0].write_text("in the way")

    store = ChunkStore((first, second), "uid", Metrics())
    assert [tier.problem and tier.problem.reason for tier in store.tier_statuses()] == ["TierNotUsable", None]
    assert put(store, small(1))
    first.paths[0].unlink()
    (tmp_path / "away").rename(first.paths[0])
    store.measure()

    assert [tier.problem for tier in store.tier_statuses()] == [None, None]
    assert get(store, BIG, 0) == body(BIG, 0)
    assert get(store, small(1)) == body(small(1), 0)
    store.close()


def test_many_threads_write_read_and_evict(folder: Folder) -> None:
    """Whatever is read is right, and the accounts are right in the end."""
    store = folder.open(quota=3 * MIB)
    wrong: list[ObjectVersion] = []

    def work(seed: int) -> None:
        for step in range(150):
            one = small((seed * 7 + step * 13) % 50)
            put(store, one)
            if get(store, one) not in (None, body(one, 0)):
                wrong.append(one)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    files = list(folder.path.glob("objects/*/*"))
    assert len(files) == len(store.present())
    assert store.held_bytes == 100_000 * len(files) <= 3 * MIB


def test_sums_of_a_range_are_those_of_its_blocks() -> None:
    """A range's checksums are cut out of the chunk's."""
    data = os.urandom(200_000)
    sums = block_sums(memoryview(data))

    assert sums_of(sums, 65_536, 131_072) == block_sums(memoryview(data[65_536:196_608]))
    assert sums_of(sums, 131_072, 200_000 - 131_072) == block_sums(memoryview(data[131_072:]))
