"""Index snapshots: what is written is found again, by inode, name, path and order."""

import threading
from pathlib import Path

import pytest

from forebay.index import ROOT_INODE, Snapshot, SnapshotWriter
from forebay.index.inodes import stable_inode
from forebay.index.writer import Origin
from forebay.source import Listing
from forebay_protocol.dataset import MountSpec
from forebay_protocol.errors import InvalidRequest

ROOT = MountSpec(name="root", source="s3://bucket/data", path="/", exclude=("*.tmp",))
DEEP = MountSpec(name="deep", source="s3://other", path="/mnt/deep")


def build(path: Path, keys: dict[str, list[str]], generation: int = 7) -> tuple[Snapshot, str]:
    """A snapshot of both mounts; every object has the length of its key."""
    writer = SnapshotWriter(path, Origin(dataset_uid="uid", generation=generation, built_at=5.0, mounts=(ROOT, DEEP)))
    for mount, names in keys.items():
        writer.add(mount, [Listing(key, len(key), f"v-{key}", 1_000) for key in names])
    fingerprint = writer.finish()
    return Snapshot.open(path), fingerprint


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """Two mounts with awkward names."""
    keys = {"root": ["data/a", "data/a/b", "data/b", "data/mnt/deep/x", "data/z.tmp"], "deep": ["n/", "n/o", "x"]}
    return build(tmp_path / "index", keys)[0]


def test_what_it_is_about(snapshot: Snapshot) -> None:
    """Counts, sizes and names of the whole; hidden: ``a``, what the deeper mount covers, a folder's bytes."""
    assert (snapshot.dataset, snapshot.generation, snapshot.built_at) == ("uid", 7, 5.0)
    assert snapshot.mounts == ("root", "deep")
    assert (snapshot.file_count, snapshot.total_bytes) == (4, len("data/a/b") + len("data/b") + len("n/o") + len("x"))
    assert snapshot.hidden_count == 3


def test_files_come_in_index_order(snapshot: Snapshot) -> None:
    """By mount as the document lists them, then by key."""
    assert [path for path, _ in snapshot.files()] == ["/a/b", "/b", "/mnt/deep/n/o", "/mnt/deep/x"]
    assert [path for path, _ in snapshot.files(["/mnt"])] == ["/mnt/deep/n/o", "/mnt/deep/x"]


def test_every_file_is_found_again(snapshot: Snapshot) -> None:
    """By path, by inode, by its parent, and as an object that the snapshot shows."""
    for path, entry in snapshot.files():
        assert snapshot.find(path) == entry
        assert snapshot.entry(entry.inode) == entry
        assert snapshot.shows(snapshot.object(entry))


def test_folders_are_listed_page_by_page(snapshot: Snapshot) -> None:
    """Names in order, from the one after the last."""
    first = snapshot.children(ROOT_INODE, limit=2)
    rest = snapshot.children(ROOT_INODE, first[-1].name)

    assert [(entry.name, entry.is_dir) for entry in first + rest] == [("a", True), ("b", False), ("mnt", True)]


def test_what_is_not_there(snapshot: Snapshot) -> None:
    """No such name, path or inode; a file is no folder."""
    assert snapshot.lookup(ROOT_INODE, "nothing") is None
    assert snapshot.find("/b/below") is None
    assert snapshot.find("/z.tmp") is None
    assert snapshot.entry(12345) is None
    found = snapshot.entry(ROOT_INODE)
    assert found is not None
    assert found.is_dir


def test_another_version_is_not_shown(snapshot: Snapshot) -> None:
    """The same key with another version is another object."""
    one = snapshot.object(next(entry for _, entry in snapshot.files()))

    assert not snapshot.shows(type(one)(one.dataset, one.mount, one.key, "other", one.size))
    assert not snapshot.shows(type(one)("another", one.mount, one.key, one.version, one.size))


def test_a_new_version_is_another_inode() -> None:
    """What the kernel has cached of the old one cannot be taken for the new one."""
    assert stable_inode("/a", "1") == stable_inode("/a", "1")
    assert len({stable_inode("/a", "1"), stable_inode("/a", "2"), stable_inode("/b", "1")}) == 3


def test_equal_listings_have_equal_fingerprints_and_inodes(tmp_path: Path) -> None:
    """Only what the listing says counts, not when it was made."""
    keys = {"root": ["data/a", "data/b"], "deep": ["x"]}
    first, one = build(tmp_path / "1", keys)
    second, same = build(tmp_path / "2", keys, generation=8)
    _, other = build(tmp_path / "3", {**keys, "deep": ["x", "y"]})

    assert one == same != other
    assert [entry.inode for _, entry in first.files()] == [entry.inode for _, entry in second.files()]


def test_threads_read_on_when_the_file_is_gone(snapshot: Snapshot, tmp_path: Path) -> None:
    """A newer generation takes the file's name; whoever has the old one open keeps it."""
    (tmp_path / "index").unlink()
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(snapshot.find("/a/b"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert None not in found


def test_a_key_that_is_listed_twice_is_there_once(tmp_path: Path) -> None:
    """As stores do whose pages overlap while objects change."""
    snapshot, _ = build(tmp_path / "index", {"root": ["data/a", "data/b", "data/b"]})

    assert [path for path, _ in snapshot.files()] == ["/a", "/b"]
    assert snapshot.find("/b") is not None


def test_something_else_is_refused(tmp_path: Path) -> None:
    """A file that is no snapshot."""
    (tmp_path / "other").write_bytes(b"nothing of the kind" * 1000)

    with pytest.raises(InvalidRequest):
        Snapshot.open(tmp_path / "other")
