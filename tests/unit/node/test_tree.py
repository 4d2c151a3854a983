"""The mount's names while one generation of the index follows another."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.index import ROOT_INODE, Snapshot, SnapshotWriter
from forebay.index.writer import Origin
from forebay.source import Listing
from forebay_node.fuse import protocol
from forebay_node.fuse.journal import Journal
from forebay_node.fuse.tree import Tree
from forebay_protocol.dataset import DatasetDocument, MountSpec

MOUNT = MountSpec(name="m", source="s3://bucket", path="/")
DOCUMENT = DatasetDocument(uid="uid", namespace="team", name="data", mounts=(MOUNT,))

Build = Callable[[dict[str, str]], Snapshot]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Makes generations of keys and their versions, each newer than the one before."""
    made: list[Path] = []

    def snapshot(versions: dict[str, str]) -> Snapshot:
        made.append(tmp_path / f"{len(made)}")
        origin = Origin(dataset_uid="uid", generation=len(made), built_at=5.0, mounts=(MOUNT,))
        writer = SnapshotWriter(made[-1], origin)
        writer.add("m", [Listing(key, 1, version, 1_000) for key, version in sorted(versions.items())])
        writer.finish()
        return Snapshot.open(made[-1])

    return snapshot


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty one."""
    made = Journal(tmp_path / "journal")
    yield made
    made.close()


def test_a_folder_is_listed_in_the_generation_in_which_it_was_opened(build: Build, journal: Journal) -> None:
    """To its end, although a newer one has replaced it meanwhile; whoever opens it then sees the newer one."""
    tree = Tree(build({"a": "1", "b": "1"}), DOCUMENT, journal)
    folder = tree.open_folder(ROOT_INODE)
    assert [entry.name for _, entry in folder.entries(0)] == ["a", "b"]

    tree.look_up(ROOT_INODE, b"a")
    tree.replace(build({"b": "1", "c": "1"}))
    tree.look_up(ROOT_INODE, b"a")

    assert [entry.name for _, entry in folder.entries(1)] == ["b"]
    tree.close_folder(folder)
    again = tree.open_folder(ROOT_INODE)
    assert [entry.name for _, entry in again.entries(0)] == ["b", "c"]
    tree.close_folder(again)
    tree.close()


def test_a_replaced_generation_is_closed_after_its_last_reader(build: Build, journal: Journal) -> None:
    """Not before, for somebody lists a folder of it; and not never."""
    first = build({"a": "1"})
    tree = Tree(first, DOCUMENT, journal)
    folder, other = tree.open_folder(ROOT_INODE), tree.open_folder(ROOT_INODE)
    closed: list[int] = []
    close, first.close = first.close, lambda: closed.append(1)  # type: ignore[method-assign]

    tree.replace(build({"b": "1"}))
    tree.close_folder(other)
    assert closed == []

    tree.close_folder(folder)
    assert closed == [1]
    close()
    tree.close()


def test_the_kernel_is_told_what_changed(build: Build, journal: Journal) -> None:
    """New, gone and changed names of folders in which it looked; nothing of the others."""
    tree = Tree(build({"changed": "1", "gone": "1", "same": "1", "unseen/x": "1"}), DOCUMENT, journal)
    tree.look_up(ROOT_INODE, b"same")

    told = tree.replace(build({"changed": "2", "new": "1", "same": "1", "unseen/x": "2"}))

    names = [b"changed", b"gone", b"new"]
    folder = protocol.inval_inode(ROOT_INODE, attributes_only=False)
    assert told == [*(protocol.inval_entry(ROOT_INODE, name) for name in names), folder]
    tree.close()


def test_a_successor_tells_the_kernel_of_folders_that_its_predecessor_looked_into(build: Build, tmp_path: Path) -> None:
    """What changes after the successor began, in a folder that only the predecessor was asked for."""
    tree = Tree(build({"folder/x": "1"}), DOCUMENT, Journal(tmp_path / "kept"))
    folder = tree.look_up(ROOT_INODE, b"folder")
    assert folder is not None
    tree.look_up(folder.inode, b"x")

    successor = Tree(build({"folder/x": "1"}), DOCUMENT, Journal(tmp_path / "kept", resume=True))
    told = successor.replace(build({"folder/x": "2"}))

    assert protocol.inval_entry(folder.inode, b"x") in told
    tree.close()
    successor.close()


def test_a_successor_shows_what_a_source_told_its_predecessor(build: Build, tmp_path: Path) -> None:
    """A version that is newer than the index, and a file that is gone."""
    first = build({"newer": "1", "gone": "1"})
    tree = Tree(first, DOCUMENT, Journal(tmp_path / "kept"))
    newer, gone = (first.lookup(ROOT_INODE, name) for name in ("newer", "gone"))
    assert newer is not None
    assert gone is not None
    tree.has_changed(newer, Listing("newer", 7, "2", 2_000))
    tree.has_changed(gone, None)

    successor = Tree(build({"newer": "1", "gone": "1"}), DOCUMENT, Journal(tmp_path / "kept", resume=True))

    shown = successor.look_up(ROOT_INODE, b"newer")
    assert shown == tree.look_up(ROOT_INODE, b"newer")
    assert shown is not None
    assert (shown.version, shown.size) == ("2", 7)
    assert successor.entry(shown.inode) == shown
    assert successor.look_up(ROOT_INODE, b"gone") is None
    tree.close()
    successor.close()
