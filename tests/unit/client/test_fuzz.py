"""Files and addresses from outside: a value or the declared error, in bounded memory."""

import contextlib
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.index import Snapshot
from forebay.index.packing import FRAME, MAGIC, Packer, unpack
from forebay.index.writer import Origin, SnapshotWriter
from forebay.source import parse_source
from forebay.source.base import Listing
from forebay_protocol.dataset import MountSpec
from forebay_protocol.errors import ForebayError, InvalidRequest
from testkit.damage import damaged

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A real index of 300 files in eight folders, with versions of two kinds; and its packed form."""
    path = tmp_path_factory.mktemp("index") / "index"
    mount = MountSpec(name="m", source="s3://bucket/p", path="/")
    packer = Packer(path.with_suffix(".packed"))
    origin = Origin(dataset_uid="u", generation=1, built_at=1.0, mounts=(mount,))
    writer = SnapshotWriter(path, origin, packer.write)
    keys = [*sorted(f"p/{number % 7}/{number:03}" for number in range(300)), "p/8", "p/8/..", "p/8/x", "p/9"]
    writer.add(
        "m", [Listing(key, number, f"{number:032x}"[: 32 - number % 2], number) for number, key in enumerate(keys)]
    )
    writer.finish()
    packer.finish()
    return path.read_bytes(), path.with_suffix(".packed").read_bytes()


def _use(path: Path) -> None:
    """Everything that a mount or a worker does with an index."""
    snapshot = Snapshot.open(path)
    try:
        for _, entry in snapshot.files():
            snapshot.shows(snapshot.object(entry))
        folders = [1]
        for folder in folders:
            after = ""
            while page := snapshot.children(folder, after, 20):
                assert [entry.name for entry in page] == sorted({entry.name for entry in page if entry.name > after})
                after = page[-1].name
                assert len(folders) < 1000, "folders lead in a circle"
                for entry in page:
                    snapshot.lookup(folder, entry.name)
                    snapshot.entry(entry.inode)
                folders += [entry.inode for entry in page if entry.is_dir]
        snapshot.find("/1/001")
    finally:
        snapshot.close()


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_indexes(tmp_path: Path, good: tuple[bytes, bytes], data: st.DataObject) -> None:
    """Garbage, cut short, or with some bytes overwritten anywhere: what is read is read, the rest is InvalidRequest."""
    path = tmp_path / "index"
    path.unlink(missing_ok=True)
    path.write_bytes(data.draw(damaged(good[0])))

    with contextlib.suppress(InvalidRequest):
        _use(path)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_tables(tmp_path: Path, good: tuple[bytes, bytes], data: st.DataObject) -> None:
    """The same where the damage is among the tables at the end, and numbers are huge, small or off by one."""
    raw = bytearray(good[0])
    for _ in range(data.draw(st.integers(1, 3))):
        place = len(raw) - 4 * data.draw(st.integers(2, 400))
        number = int.from_bytes(raw[place : place + 4], "little")
        wrong = data.draw(st.sampled_from([0, 1, number ^ 1, number + 1, 2**31, 2**32 - 1]))
        raw[place : place + 4] = (wrong % 2**32).to_bytes(4, "little")
    path = tmp_path / "index"
    path.unlink(missing_ok=True)
    path.write_bytes(raw)

    with contextlib.suppress(InvalidRequest):
        _use(path)


@pytest.mark.parametrize("place", range(1, 9))
@pytest.mark.parametrize("wrong", [2**31, 2**32 - 1])
def test_counts_that_cannot_be(tmp_path: Path, good: tuple[bytes, bytes], place: int, wrong: int) -> None:
    """However many files, folders or blocks an index says to have: nothing is reserved for what it does not contain."""
    raw = bytearray(good[0])
    raw[len(raw) - 4 * place : len(raw) - 4 * place + 4] = wrong.to_bytes(4, "little")
    (tmp_path / "index").write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            _use(tmp_path / "index")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_packed_indexes(tmp_path: Path, good: tuple[bytes, bytes], data: st.DataObject) -> None:
    """What comes over the wire: unpacked, and used if it can be; else InvalidRequest."""
    packed, plain = tmp_path / "packed", tmp_path / "plain"
    packed.write_bytes(data.draw(damaged(good[1])))

    with contextlib.suppress(InvalidRequest):
        unpack(packed, plain)
        _use(plain)


@pytest.mark.parametrize("missing", [1, 8, 9, 100])
def test_packed_indexes_that_end_early(tmp_path: Path, good: tuple[bytes, bytes], missing: int) -> None:
    """However little is missing."""
    (tmp_path / "packed").write_bytes(good[1][:-missing])

    with pytest.raises(InvalidRequest):
        unpack(tmp_path / "packed", tmp_path / "plain")


def _frame(size: int, packed: bytes) -> bytes:
    return struct.pack("<II", size, len(packed)) + packed


ZEROS = zlib.compress(bytes(FRAME), 9)
BOMB = MAGIC + 128 * _frame(FRAME, ZEROS) + _frame(0, b"")


def test_an_index_that_unpacks_to_a_hundred_times_its_size(tmp_path: Path) -> None:
    """The file grows, this process does not."""
    (tmp_path / "packed").write_bytes(BOMB)
    tracemalloc.start()
    try:
        unpack(tmp_path / "packed", tmp_path / "plain")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (tmp_path / "plain").stat().st_size == 128 * MIB
    assert peak < 8 * MIB


@pytest.mark.parametrize(
    "frame",
    [
        _frame(FRAME + 1, zlib.compress(bytes(FRAME + 1))),
        _frame(1000, zlib.compress(bytes(1001))),
        _frame(1000, zlib.compress(bytes(999))),
        _frame(4096, zlib.compress(bytes(64 * MIB), 9)[:4000]),
        _frame(1000, zlib.compress(bytes(1000))[:-1]),
    ],
)
def test_frames_that_lie(tmp_path: Path, frame: bytes) -> None:
    """Too large, or of another size than they say, or without an end."""
    (tmp_path / "packed").write_bytes(MAGIC + frame + _frame(0, b""))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            unpack(tmp_path / "packed", tmp_path / "plain")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_source_addresses(text: str) -> None:
    """Parts that are not empty, or a ForebayError."""
    try:
        found = parse_source(text)
    except ForebayError:
        return
    assert found.scheme
    assert found.container
