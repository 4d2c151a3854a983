"""What is answered again from where it was found before is right, for those who may have it, and holds nothing back."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forebay_protocol import wire
from forebay_protocol.errors import Unauthorized
from forebay_protocol.keys import ChunkKey, ObjectVersion
from forebay_protocol.wire import Flag, ReadRequest
from forebay_worker.core.chunk import Chunk, Phase
from forebay_worker.serve.repeats import Repeats
from forebay_worker.serve.stream import Stream
from forebay_worker.store.places import OpenFile, Place, Places
from forebay_worker.store.tiered import ChunkStore
from testkit.chunk_store import Folder, body, put, small

ONE = small(1)
KEY = ChunkKey(ONE.object_id, 0)
RAW = wire.encode_request(ReadRequest(7, ONE, 0, ONE.size))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """An empty tier."""
    made = Folder(tmp_path)
    yield made
    if made.store is not None:
        made.store.close()


def place_of(store: ChunkStore, one: ObjectVersion = ONE) -> Place:
    """Where a chunk was found."""
    lease = store.lease(ChunkKey(one.object_id, 0))
    assert lease is not None
    place = lease.place()
    lease.release()
    assert place is not None
    return place


def copied(place: Place) -> bytes | None:
    """All bytes of the chunk, or nothing."""
    view = memoryview(bytearray(place.chunk.length))
    return bytes(view) if place.copy(0, view) else None


def open_files(path: Path) -> int:
    """How many descriptors this process has to a file, with its name or without."""
    names = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            names.append(str(link.readlink()))
        except FileNotFoundError:
            # The listing's own.
            continue
    return sum(name.removesuffix(" (deleted)") == str(path) for name in names)


def test_a_place_gives_its_chunk_until_that_leaves_and_then_lets_the_file_go(folder: Folder) -> None:
    """Nothing of a chunk that was damaged is read at its place, and its room is free at once."""
    store = folder.open()
    put(store, ONE)
    place = place_of(store)
    assert (copied(place), open_files(folder.file(ONE))) == (body(ONE, 0), 1)

    store.damaged(place.chunk, place.tier)

    assert (copied(place), store.lease_again(place)) == (None, None)
    assert (folder.file(ONE).exists(), open_files(folder.file(ONE))) == (False, 0)
    put(store, ONE)
    assert copied(place) is None
    assert copied(place_of(store)) == body(ONE, 0)


def test_bytes_that_went_while_they_were_copied_are_not_used(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunk is gone when it is looked at the second time."""
    store = folder.open()
    put(store, ONE)
    place = place_of(store)
    real = os.preadv

    def reads_late(*arguments: Any) -> int:
        store.damaged(place.chunk, place.tier)
        return real(*arguments)

    monkeypatch.setattr("os.preadv", reads_late)
    assert copied(place) is None


def test_who_reads_at_a_place_by_lease_keeps_the_chunk(folder: Folder) -> None:
    """A chunk that is found damaged stays in its file until the last lease has ended."""
    store = folder.open()
    put(store, ONE)
    place = place_of(store)
    lease = store.lease_again(place)
    assert lease is not None

    store.damaged(place.chunk, place.tier)
    assert os.pread(lease.fd, lease.length, lease.offset) == body(ONE, 0)
    assert folder.file(ONE).exists()

    lease.release()
    assert (folder.file(ONE).exists(), open_files(folder.file(ONE))) == (False, 0)


def test_a_chunk_that_moved_and_came_back_is_not_read_in_its_former_file(tmp_path: Path) -> None:
    """The tier is the same again, the file is not."""
    (tmp_path / "file").write_bytes(b"former")
    chunk = Chunk(KEY, 0, 6, Phase.PRESENT, verified=True)
    places = Places()
    place = places.add(Place(chunk, 0, OpenFile(os.open(tmp_path / "file", os.O_RDONLY))))
    assert copied(place) == b"former"

    chunk.tier = 1
    assert copied(place) is None
    places.forget(KEY, 1)
    places.forget(KEY, 0)
    chunk.tier = 0
    assert copied(place) is None


def test_only_so_many_files_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place that was found first goes first."""
    monkeypatch.setattr("forebay_worker.store.places._MOST", 2)
    (tmp_path / "file").write_bytes(b"bytes")
    places = Places()
    made = [
        places.add(
            Place(
                Chunk(ChunkKey("0", number), 0, 0, Phase.PRESENT, verified=True),
                0,
                OpenFile(os.open(tmp_path / "file", os.O_RDONLY)),
            )
        )
        for number in range(3)
    ]
    assert [place.holds for place in made] == [False, True, True]
    assert open_files(tmp_path / "file") == 2
    places.clear()
    assert open_files(tmp_path / "file") == 0


def stream(dataset: str = "uid", *, good: bool = True, raw: bytes = RAW) -> Stream:
    """A stream of somebody who was let in, and what came on it."""

    def check() -> None:
        if not good:
            raise Unauthorized("the token has expired")

    admission = SimpleNamespace(dataset=dataset, check=check)
    return cast("Stream", SimpleNamespace(pending=raw, admission=admission, secured=False))


def test_a_repeat_is_known_whatever_its_id_and_to_those_only_who_may_make_it(folder: Folder) -> None:
    """Another id: yes. Another range, flag, dataset of the stream, or a token that has expired: no."""
    store = folder.open()
    put(store, ONE)
    place = place_of(store)
    repeats = Repeats()
    repeats.learn(RAW, ReadRequest(7, ONE, 0, ONE.size), 0, b"head", place)

    again = wire.encode_request(ReadRequest(8, ONE, 0, ONE.size))
    known = repeats.recognise(stream(raw=again))
    assert known is not None
    assert (known.place, known.within, known.length, known.head) == (place, 0, ONE.size, b"head")

    for other in (
        stream("another"),
        stream(good=False),
        stream(raw=RAW + RAW),
        stream(raw=wire.encode_request(ReadRequest(7, ONE, 0, 65536))),
        stream(raw=wire.encode_request(ReadRequest(7, ONE, 0, ONE.size, Flag.PEER))),
    ):
        assert repeats.recognise(other) is None
    store.damaged(place.chunk, place.tier)
    assert repeats.recognise(stream()) is None
