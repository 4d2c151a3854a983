"""Listing mounts into an index: prefixes at the same time, pages ahead, order restored, failures that leave nothing."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typing_extensions import override

from forebay.index import Snapshot
from forebay.index.packing import unpack
from forebay.index.writer import Origin
from forebay.source import Listing
from forebay_protocol.dataset import MountSpec
from forebay_protocol.errors import SourceUnavailable
from forebay_worker.index.build import LISTERS, ListingFailed, build

MOUNT = MountSpec(name="m", source="s3://bucket/data", path="/")


class ListedSource:
    """A source of some keys, in the order in which they are given."""

    def __init__(self, keys: Sequence[str], fails_at: str = "") -> None:
        """``fails_at`` is a key at which the store stops answering."""
        self._keys, self._fails_at = keys, fails_at
        self._lock = threading.Lock()
        self.asked: list[str] = []
        self.listed = 0

    def list(self, prefix_below_mount: str = "", delimiter: bool = False) -> Iterator[Listing]:
        """As sources do."""
        prefix = f"data/{prefix_below_mount}"
        with self._lock:
            self.asked.append("/" if delimiter else prefix_below_mount)
        seen: set[str] = set()
        for key in self._keys:
            head, slash, _ = key[len(prefix) :].partition("/")
            if not key.startswith(prefix) or prefix + head in seen:
                continue
            if key == self._fails_at and not delimiter:
                raise SourceUnavailable("the store went away")
            if delimiter and slash:
                seen.add(prefix + head)
                yield Listing(f"{prefix}{head}/", 0, "", 0)
            else:
                with self._lock:
                    self.listed += 1
                yield Listing(key, len(key), f"v-{key}", 1_000)

    def read_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview) -> None:
        """Nothing is read here."""
        raise NotImplementedError

    def probe(self) -> None:
        """It is there."""

    def close(self) -> None:
        """Nothing to give back."""


def built(folder: Path, source: ListedSource) -> list[str]:
    """The keys that an index of the source shows, in its order; packed and plain are the same."""
    origin = Origin(dataset_uid="uid", generation=1, built_at=1.0, mounts=(MOUNT,))
    build(folder / "index", folder / "packed", origin, lambda _: source)
    unpack(folder / "packed", folder / "unpacked")
    assert (folder / "unpacked").read_bytes() == (folder / "index").read_bytes()
    return [entry.key for _, entry in Snapshot.open(folder / "index").files()]


def test_prefixes_are_listed_at_the_same_time(tmp_path: Path) -> None:
    """More of them than threads, with objects between them; the order is that of the keys."""
    keys = sorted([f"data/{name:02}/{number:04}" for name in range(3 * LISTERS) for number in range(50)] + [
        "data/03-between", "data/a",
    ])  # fmt: skip
    source = ListedSource(keys)

    assert built(tmp_path, source) == keys
    assert sorted(source.asked) == sorted(["/", *(f"{name:02}/" for name in range(3 * LISTERS))])


def test_one_prefix_is_listed_in_a_row(tmp_path: Path) -> None:
    """There is nothing to do at the same time; many pages."""
    keys = [f"data/a/{number:05}" for number in range(40_000)]
    source = ListedSource(keys)

    assert built(tmp_path, source) == keys
    assert source.asked == ["/", ""]


def test_a_store_without_order_is_sorted(tmp_path: Path) -> None:
    """Some stores list as they please: the index is the same."""
    keys = [f"data/{number * 7919 % 5000:04}" for number in range(5000)]

    assert built(tmp_path, ListedSource(keys)) == sorted(keys)


@pytest.mark.parametrize("fails_at", ["data/00/0000", "data/01/0049", "data/b"])
def test_a_store_that_fails_leaves_nothing(tmp_path: Path, fails_at: str) -> None:
    """Wherever it fails: the mount is named, and no file is left."""
    keys = sorted([f"data/{name:02}/{number:04}" for name in range(20) for number in range(50)] + ["data/b"])
    if fails_at == "data/b":
        keys = [key for key in keys if key.startswith(("data/00", "data/b"))]

    with pytest.raises(ListingFailed) as failed:
        built(tmp_path, ListedSource(keys, fails_at))

    assert failed.value.mount == "m"
    assert list(tmp_path.iterdir()) == []


def test_what_is_fetched_ahead_is_bounded(tmp_path: Path) -> None:
    """While the first prefix is slow, only as many others are listed as there are threads, however many there are."""
    keys = [f"data/{name:03}/{number}" for name in range(100) for number in range(10)]
    too_far, seen = threading.Event(), []

    class Slow(ListedSource):
        @override
        def list(self, prefix_below_mount: str = "", delimiter: bool = False) -> Iterator[Listing]:
            if prefix_below_mount == f"{LISTERS:03}/":
                too_far.set()
            elif prefix_below_mount == "000/":
                seen.append(too_far.wait(0.5))
            yield from super().list(prefix_below_mount, delimiter)

    assert built(tmp_path, Slow(keys)) == keys
    assert seen == [False]
