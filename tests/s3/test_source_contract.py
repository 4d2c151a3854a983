"""What every source promises, against a real store of each kind."""

import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.source import Listing, Source
from forebay_protocol.dataset import Credentials
from forebay_protocol.errors import ForebayError, ObjectChanged, ObjectMissing, SourceMissing
from testkit.source_backends import (
    Backend,
    BlobBackend,
    ClaimBackend,
    Folder,
    FsspecBackend,
    S3Backend,
    WebBackend,
)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/04-own-source"
KINDS = (
    "minio",
    "versitygw",
    "nginx-html",
    "nginx-json",
    "nginx-dated",
    "nginx-manifest",
    "claim",
    "fsspec",
    "plug-in",
)
BODY = os.urandom(200_000)
AWKWARD = ("a b", "a%20b", "ünï/çø", "x+y", "z&=;,", "q?r", "h#sh", "a-b", "a/b", "a.b/c", "a0", "日本/語", "'quoted'")


def _web(web: tuple[str, Path], kind: str) -> WebBackend:
    url, files = web
    name = uuid.uuid4().hex[:12]
    (files / name).mkdir()
    form, manifest = ("bare", "MANIFEST") if kind == "manifest" else (kind, "")
    return WebBackend(Folder(files / name), f"{url}/{form}/{name}", manifest)


def _plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobBackend:
    """The example, installed as a distribution would be: its module and its entry point are on the path."""
    installed = tmp_path / "forebay_blobs-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: forebay-blobs\nVersion: 0.1.0\n")
    project = (EXAMPLE / "pyproject.toml").read_text()
    (installed / "entry_points.txt").write_text(
        "[forebay.sources]\n" + project.partition('sources"]\n')[2].replace('"', "")
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("BLOBS_FOLDER", str(tmp_path))
    backend = BlobBackend(tmp_path)
    backend.put({})
    return backend


@pytest.fixture(params=KINDS)
def store(
    request: pytest.FixtureRequest, tmp_path: Path, keys: Credentials, monkeypatch: pytest.MonkeyPatch
) -> Backend:
    """An empty store of each kind."""
    match str(request.param).partition("-")[::2]:
        case ("minio", _):
            return S3Backend(request.getfixturevalue("bucket"), keys)
        case ("versitygw", _):
            return S3Backend(request.getfixturevalue("versity_bucket"), keys)
        case ("nginx", kind):
            return _web(request.getfixturevalue("web"), kind)
        case ("claim", _):
            (tmp_path / "claim").mkdir()
            return ClaimBackend(Folder(tmp_path / "claim"))
        case ("fsspec", _):
            return FsspecBackend(uuid.uuid4().hex)
        case _:
            return _plug_in(tmp_path, monkeypatch)


def _listed(source: Source, key: str) -> Listing:
    return next(listing for listing in source.list() if listing.key.endswith(key))


def _read(source: Source, one: Listing, offset: int = 0, length: int | None = None) -> bytes:
    buffer = bytearray(one.size if length is None else length)
    source.read_into(one.key, one.version, one.size, offset, memoryview(buffer))
    return bytes(buffer)


def test_all_objects_are_listed_in_order_and_read(store: Backend) -> None:
    """Whatever their names are, and nothing from beside the prefix."""
    objects = {f"p/{name}": name.encode() * 3 for name in AWKWARD}
    store.put({**objects, "px/beside": b"not ours", "p.txt": b"not ours"})
    source = store.open("p")

    listed = list(source.list())

    names = [one.key[one.key.index("p/") :] for one in listed]
    assert names == sorted(objects, key=str.encode)
    assert [_read(source, one) for one in listed] == [objects[name] for name in names]
    assert all(one.version for one in listed)
    assert [one.key for one in listed] == [one.key for one in source.list()]


def test_a_listing_may_be_taken_level_by_level(store: Backend) -> None:
    """Prefixes and objects of one level stand in one order; all levels together are the whole listing."""
    store.put({"b": b"1", "a/x": b"2", "a/y/z": b"3", "a-b": b"4", "c/w": b"5"})
    source = store.open()
    whole = list(source.list())
    start = whole[0].key.removesuffix("a-b")

    def below(prefix: str) -> Iterator[Listing]:
        for one in source.list(prefix, delimiter=True):
            if one.is_prefix:
                assert one.size == 0
                yield from below(one.key.removeprefix(start))
            else:
                yield one

    assert [one.key.removeprefix(start) for one in source.list(delimiter=True)] == ["a-b", "a/", "b", "c/"]
    assert list(below("")) == whole
    assert [one.key.removeprefix(start) for one in source.list("a/")] == ["a/x", "a/y/z"]


def test_any_range_is_read(store: Backend) -> None:
    """The first, a middle and the last bytes, and all of them."""
    store.put({"one": BODY})
    source = store.open()
    one = _listed(source, "one")

    assert one.size == len(BODY)
    for offset, length in ((0, 1), (1000, 70_000), (len(BODY) - 1, 1), (0, len(BODY))):
        assert _read(source, one, offset, length) == BODY[offset : offset + length]


@pytest.mark.parametrize("size", [len(BODY), len(BODY) // 2, 2 * len(BODY)], ids=["same", "half", "double"])
def test_an_overwritten_object_is_another_version(store: Backend, size: int) -> None:
    """Of the same size or another: the old version is refused, the new one is listed and read."""
    store.put({"one": BODY, "two": b"stays"})
    source = store.open()
    old, other = _listed(source, "one"), _listed(source, "two")
    fresh = os.urandom(size)
    store.put({"one": fresh})

    for offset in (0, 1000):
        with pytest.raises(ObjectChanged):
            _read(source, old, offset, 50)

    new = _listed(source, "one")
    assert new.version != old.version
    assert _read(source, new) == fresh
    assert _listed(source, "two").version == other.version


def test_a_deleted_object_is_missing(store: Backend) -> None:
    """It cannot be read and is not listed."""
    store.put({"one": BODY, "two": b"stays"})
    source = store.open()
    one = _listed(source, "one")
    store.delete("one")

    with pytest.raises(ObjectMissing):
        _read(source, one, 0, 1000)
    assert [listing.key.rpartition("/")[2] for listing in source.list()] == ["two"]


def test_a_place_that_is_not_there_is_told(store: Backend) -> None:
    """By the listing and by the probe, in words."""
    source = store.open(elsewhere=True)

    with pytest.raises((SourceMissing, ObjectMissing)):
        list(source.list())
    with pytest.raises((SourceMissing, ObjectMissing)):
        source.probe()


def test_what_works_is_told_too(store: Backend) -> None:
    """The probe says nothing."""
    store.put({"one": b"1"})

    store.open().probe()


def test_reads_during_overwrites_are_of_one_version(store: Backend) -> None:
    """Readers on threads of their own see the bytes of the version that they ask for, or an error; never a mix."""
    size, rounds = 150_000, 25
    good: list[str] = []
    wrong: list[str] = []
    store.put({"one": bytes([1]) * size})
    source = store.open()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                one = _listed(source, "one")
                got = _read(source, one)
            except (ForebayError, StopIteration):
                continue
            (good if got == got[:1] * size else wrong).append(one.version)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(rounds):
        store.put({"one": bytes([2 + number]) * size})
    done.set()
    for reader in readers:
        reader.join(60)

    assert not wrong
    assert _read(source, _listed(source, "one")) == bytes([1 + rounds]) * size
