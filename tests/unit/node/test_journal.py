"""What a server leaves to its successor."""

from pathlib import Path

import pytest

from forebay_node.fuse import journal as module
from forebay_node.fuse.journal import Journal


def test_a_successor_finds_what_is_of_use(tmp_path: Path) -> None:
    """Newest values, without what was dropped; names of any characters."""
    first = Journal(tmp_path / "journal")
    first.put("file", 1, "a\n\udcff", 5)
    first.put("file", 2, None)
    first.put("file", 1, "b\n\udcff", [6])
    first.put("folder", 1, "other")
    first.drop("file", 2)
    first.drop("file", 3)

    second = Journal(tmp_path / "journal", resume=True)
    second.put("file", "key", True)
    third = Journal(tmp_path / "journal", resume=True)

    assert second.items("folder") == [(1, ["other"])]
    assert third.items("file") == [(1, ["b\n\udcff", [6]]), ("key", [True])]
    assert Journal(tmp_path / "journal").items("file") == []


def test_every_prefix_of_the_file_is_a_journal(tmp_path: Path) -> None:
    """Whatever a kill left of the last line, all before it are there; and what the successor writes is too."""
    written = Journal(tmp_path / "journal")
    for number in range(3):
        written.put("file", number, "x" * number)
    whole = (tmp_path / "journal").read_bytes()

    for length in range(len(whole)):
        torn = tmp_path / "torn"
        torn.write_bytes(whole[:length])
        successor = Journal(torn, resume=True)
        successor.put("file", 99, "later")

        expected = whole[:length].count(b"\n")
        assert [key for key, _ in Journal(torn, resume=True).items("file")] == [*range(expected), 99]


def test_the_file_does_not_grow_with_what_is_no_longer_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening and closing for ever; what is still open stays."""
    monkeypatch.setattr(module, "_COMPACT", 20)
    journal = Journal(tmp_path / "journal")
    journal.put("file", "open", "all the time")

    for number in range(1000):
        journal.put("file", number, "x" * 50)
        journal.drop("file", number)

    assert (tmp_path / "journal").stat().st_size < 20 * 100
    assert Journal(tmp_path / "journal", resume=True).items("file") == [("open", ["all the time"])]
    journal.close()
    journal.put("file", 1, "after the end")
