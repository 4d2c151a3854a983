"""Encrypted tiers: any range opens with the key, nothing does without it, and no byte is there in the plain."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_protocol.keys import BLOCK_SIZE, ChunkKey
from forebay_worker.metrics import Metrics
from forebay_worker.settings import TierSettings, parse_tier
from forebay_worker.store.sealing import KEY_SIZE, Sealing
from forebay_worker.store.sparse import SparseFiles
from forebay_worker.store.tiered import ChunkStore
from testkit.chunk_store import BIG, MIB, body, get, put, small

SEALING = Sealing(b"k" * KEY_SIZE)


def store(path: Path, sealing: Sealing | None = SEALING, *, encrypted: bool = True) -> ChunkStore:
    """One SSD tier."""
    tier = TierSettings(medium="SSD", paths=(path,), quota=64 * MIB, encrypted=encrypted)
    return ChunkStore((tier,), "uid", Metrics(), sealing)


def on_disk(path: Path) -> bytes:
    """All bytes of all cache files."""
    return b"".join(file.read_bytes() for file in path.glob("objects/*/*"))


@given(data=st.binary(max_size=500), start=st.binary(min_size=16, max_size=16), step=st.integers(0, 30))
@settings(max_examples=150, deadline=None)
def test_any_range_opens_by_itself(data: bytes, start: bytes, step: int) -> None:
    """Also where the counter runs over its end."""
    for begin in (start, b"\xff" * 16):
        sealed = SEALING.apply(begin, 0, data)
        within = min(step * 16, len(data))
        assert (
            SEALING.apply(begin, within - within % 16, sealed[within - within % 16 :]) == data[within - within % 16 :]
        )
        assert len(sealed) == len(data)
        assert SEALING.apply(begin, 0, sealed) == data


def test_the_disk_has_no_plain_byte(tmp_path: Path) -> None:
    """What is put can be read whole and in parts; the same bytes look different each time that they are written."""
    one = store(tmp_path)
    assert put(one, BIG, 1)
    assert put(one, small(1))

    assert get(one, BIG, 1) == body(BIG, 1)
    lease = one.lease(ChunkKey(BIG.object_id, 1))
    assert lease is not None
    assert not lease.plain
    assert lease.read(3 * BLOCK_SIZE, 100) == body(BIG, 1)[3 * BLOCK_SIZE :][:100]
    lease.release()
    disk = on_disk(tmp_path)
    assert body(BIG, 1)[:64] not in disk
    assert body(small(1), 0)[:64] not in disk
    # A descriptor would give away what is of no use: who asks for one reads through the worker.
    assert one.holders.lease(BIG, 0) is None

    again = tmp_path / "again"
    other = store(again)
    assert put(other, small(1))
    first, second = (SparseFiles(path).path(small(1).object_id).read_bytes() for path in (tmp_path, again))
    assert (len(first), first != second) == (len(second), True)


def test_a_restart_is_warm_and_another_key_is_cold(tmp_path: Path) -> None:
    """The same key opens what was there; with another one, none, or none wanted any more, all of it is dropped."""
    one = store(tmp_path)
    assert put(one, BIG, 0)
    one.close()

    one = store(tmp_path, Sealing(b"k" * KEY_SIZE))
    assert get(one, BIG, 0) == body(BIG, 0)
    assert one.corrupt_chunks == 0
    one.close()

    for other, encrypted in ((Sealing(b"x" * KEY_SIZE), True), (SEALING, False), (SEALING, True)):
        one = store(tmp_path, other, encrypted=encrypted)
        assert get(one, BIG, 0) is None
        assert on_disk(tmp_path) == b""
        assert one.corrupt_chunks == 0
        assert put(one, BIG, 0)
        assert get(one, BIG, 0) == body(BIG, 0)
        one.close()


def test_without_a_key_nothing_is_kept(tmp_path: Path) -> None:
    """Rather no cache than a plain one; the status says why."""
    one = store(tmp_path, None)

    assert not put(one, BIG, 0)
    (status,) = one.tier_statuses()
    assert status.problem is not None
    assert "no data key" in status.problem.message
    assert on_disk(tmp_path) == b""


def test_damage_is_found(tmp_path: Path) -> None:
    """A flipped bit of what is encrypted is one of what is not."""
    one = store(tmp_path)
    assert put(one, small(1))
    one.close()
    (file,) = tmp_path.glob("objects/*/*")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)

    one = store(tmp_path)
    assert get(one, small(1)) is None
    assert one.corrupt_chunks == 1


def test_keys_and_arguments() -> None:
    """Keys of another length and words that are neither yes nor no are refused."""
    with pytest.raises(ValueError, match="32 bytes"):
        Sealing(os.urandom(16))
    assert parse_tier("medium=SSD,path=/a,quota=1,encrypted=yes").encrypted
    assert not parse_tier("medium=SSD,path=/a,quota=1").encrypted
    with pytest.raises(ValueError, match="yes or no"):
        parse_tier("medium=SSD,path=/a,quota=1,encrypted=maybe")
