"""Write one generation of a dataset's listing, in one pass over the pages of the listings."""

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import lt
from pathlib import Path
from typing import NamedTuple

from forebay.index.directory import Directory
from forebay.index.folders import Folders
from forebay.index.glob import PathFilter
from forebay.index.layout import FolderRecord, Layout, Tables, tail
from forebay.index.naming import MAX_NAME, is_escaped, is_folder, names_of, split_path
from forebay.index.rows import Rows
from forebay.source.base import Listing
from forebay.source.location import parse_source
from forebay_protocol.dataset import MountSpec
from forebay_protocol.errors import InvalidRequest, SourceInvalid

_BETWEEN = "/\n/"
_AWKWARD = ("//", "/./", "/../", "/.forebay", "\0")
_MOST_BYTES = 4
"""A character has so many bytes in UTF-8 at most."""


class OutOfOrder(SourceInvalid):
    """A listing is not in the order of its keys: it must be sorted first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a snapshot is a snapshot of, and which one."""

    dataset_uid: str
    generation: int
    built_at: float
    mounts: Sequence[MountSpec]


class _Run(NamedTuple):
    """Consecutive files of one folder."""

    folder: str
    names: Sequence[str]
    sizes: Sequence[int]
    versions: Sequence[str]
    mtimes: Sequence[int]


class _Mount:
    """One mount while its listing is written."""

    def __init__(self, number: int, spec: MountSpec, mounts: Sequence[MountSpec]) -> None:
        self.number = number
        self.names = split_path(spec.path)
        self.root = "".join(f"/{name}" for name in self.names)
        self.prefix = parse_source(spec.source).key_prefix
        self.filter = PathFilter(spec.include, spec.exclude) if spec.include or spec.exclude else None
        # As with mounts of a file system, a deeper one hides what lies beneath it.
        self.hiders = tuple(
            names for names in (split_path(other.path) for other in mounts)
            if len(names) > len(self.names) and names[: len(self.names)] == self.names
        )  # fmt: skip
        self._last = ""

    def in_order(self, page: Sequence[Listing]) -> Sequence[Listing]:
        """The page without what was listed before; OutOfOrder when a key comes too late."""
        keys = [listing.key for listing in page]
        if not (self._last < keys[0] and all(map(lt, keys, keys[1:]))):
            page = self._without_repeated(page)
        self._last = max(self._last, keys[-1])
        return page

    def _without_repeated(self, page: Sequence[Listing]) -> list[Listing]:
        """As stores repeat keys whose pages overlap while objects change."""
        kept, last = [], self._last
        for listing in page:
            if listing.key < last:
                raise OutOfOrder("the store does not list its objects in order")
            if listing.key > last:
                kept.append(listing)
            last = listing.key
        return kept

    def plain_runs(self, page: Sequence[Listing]) -> Iterator[_Run] | None:
        """The page where all keys are files' that are shown under their own names, as in nearly all; else None."""
        keys, sizes, versions, mtimes = zip(*page, strict=True)
        # They are in order, and so is what is between two keys of a prefix.
        below = [self.below(keys[0]), *(key[len(self.prefix) :] for key in keys[1:-1]), self.below(keys[-1])]
        text = f"/{_BETWEEN.join(below)}/"
        longest = max(map(len, below)) * (1 if text.isascii() else _MOST_BYTES)
        if self.filter is not None or self.hiders or longest > MAX_NAME or not _is_utf8(text):
            return None
        return (
            None if any(sign in text for sign in _AWKWARD) else self._runs(below[: len(keys)], sizes, versions, mtimes)
        )

    def _runs(
        self, below: Sequence[str], sizes: Sequence[int], versions: Sequence[str], mtimes: Sequence[int]
    ) -> Iterator[_Run]:
        folders, _, names = zip(*[key.rpartition("/") for key in below], strict=True)
        start = 0
        for folder, same in groupby(folders):
            run = slice(start, start + len(list(same)))
            path = f"{self.root}/{folder}" if folder else self.root
            yield _Run(path, names[run], sizes[run], versions[run], mtimes[run])
            start = run.stop

    def below(self, key: str) -> str:
        """The key below the mount's prefix."""
        if not key.startswith(self.prefix):
            raise SourceInvalid("the source listed an object that does not belong to the mount")
        return key[len(self.prefix) :]


class SnapshotWriter:
    """Takes listings in index order and leaves a snapshot file; ``finish`` or ``abandon`` ends it."""

    def __init__(self, path: Path, origin: Origin, also: Callable[[bytes], None] = lambda _: None) -> None:
        """Begin an empty file at ``path``; ``also`` is given all bytes that go there, as soon as they are final."""
        roots = [split_path(spec.path) for spec in origin.mounts]
        if len(set(roots)) < len(roots):
            raise InvalidRequest("two mounts have the same path: give each mount a path of its own")
        path.unlink(missing_ok=True)
        self._path, self._origin, self._also = path, origin, also
        self._file = path.open("wb")
        self._size = 0
        self._fingerprint = hashlib.blake2b(digest_size=16)
        self._mounts = {spec.name: _Mount(number, spec, origin.mounts) for number, spec in enumerate(origin.mounts)}
        self._folders = Folders()
        self._rows = Rows(self._write)
        self._total = 0
        self._hidden = 0
        for spec in origin.mounts:
            self._digest(spec.name, spec.source, spec.path, *spec.include, "", *spec.exclude)
        for mount in self._mounts.values():
            self._folders.number(mount.root)

    def _digest(self, *parts: str) -> None:
        for part in parts:
            raw = part.encode("utf-8", "surrogateescape")
            self._fingerprint.update(len(raw).to_bytes(4, "big") + raw)

    def _write(self, piece: bytes) -> int:
        """Append a piece whose place does not change any more; returns its offset."""
        offset = self._size
        self._file.write(piece)
        self._also(piece)
        self._fingerprint.update(piece)
        self._size += len(piece)
        return offset

    def add(self, mount_name: str, page: Sequence[Listing]) -> None:
        """Add objects of a mount, in the order of their keys over all calls, but for those that its globs leave out.

        OutOfOrder when they are not, SourceInvalid when an object cannot be kept in an index.
        """
        mount = self._mounts[mount_name]
        if not page or not (page := mount.in_order(page)):
            return
        for run in mount.plain_runs(page) or self._runs(mount, page):
            folder = self._folders.number(run.folder)
            self._folders.belongs(folder, mount.number)
            self._total += sum(run.sizes)
            self._rows.add(folder, run.names, run.sizes, run.versions, run.mtimes)

    def _runs(self, mount: _Mount, page: Sequence[Listing]) -> Iterator[_Run]:
        placed = (one for listing in page if (one := self._placed(mount, listing)) is not None)
        for (folder, _), same in groupby(placed, key=lambda one: (one[0], is_escaped(one[1]))):
            _, names, listings = zip(*same, strict=True)
            _, sizes, versions, mtimes = zip(*listings, strict=True)
            yield _Run(folder, names, sizes, versions, mtimes)

    def _placed(self, mount: _Mount, listing: Listing) -> tuple[str, str, Listing] | None:
        """Folder and name of an object; None for one that is not shown."""
        below = mount.below(listing.key)
        names = names_of(below)
        if mount.filter is not None and not mount.filter.matches("/".join(names)):
            return None
        names = mount.names + names
        if any(names[: len(root)] == root for root in mount.hiders) or not _is_utf8(below):
            self._hidden += 1
            return None
        path = "".join(f"/{name}" for name in names)
        if is_folder(below):
            self._folders.number(path)
            self._hidden += listing.size > 0
            return None
        return path.rpartition("/")[0], names[-1], listing

    def finish(self) -> str:
        """Complete the file; returns the fingerprint, which is equal for equal listings of equal mounts."""
        tables = self._tables()
        # What is hidden by a folder of its name is looked for in the file itself.
        self._end(tables)
        shadowed, size = self._shadowed(tables)
        if shadowed:
            tables = tables._replace(shadowed=shadowed)
            self._hidden += len(shadowed)
            self._total -= size
            self._end(tables)
        self._also(self._tail(tables))
        self._file.close()
        return self._fingerprint.hexdigest()

    def _tables(self) -> Tables:
        segments = self._rows.finish()
        folders = list(self._folders.breadth_first())
        order = [number for number, _ in folders]
        places = {number: place for place, number in enumerate(order)}
        blocks = list(self._rows.blocks(places))
        kinds = [(0, 0)] * len(order)
        for block, escaped in blocks:
            plain, odd = kinds[block.folder]
            kinds[block.folder] = (plain + (not escaped), odd + escaped)
        paths = [self._folders.path(number).encode() for number in order]
        offset = self._write(b"".join(paths))
        records, child, first_block = [], 1, 0
        for (number, children), (plain, odd), path in zip(folders, kinds, paths, strict=True):
            mount = self._folders.mount(number)
            records.append(FolderRecord(offset, len(path), mount, child, len(children), first_block, plain, odd))
            offset += len(path)
            child += len(children)
            first_block += plain + odd
        inodes, inode_folders = self._folders.inodes(order)
        return Tables(segments, records, [block for block, _ in blocks], inodes, inode_folders, array("I"))

    def _tail(self, tables: Tables) -> bytes:
        about = {
            "dataset": self._origin.dataset_uid,
            "generation": self._origin.generation,
            "built_at": self._origin.built_at,
            "total_bytes": self._total,
            "file_count": self._rows.count - len(tables.shadowed),
            "hidden_count": self._hidden,
            "fingerprint": self._fingerprint.hexdigest(),
            "mounts": [(spec.name, spec.path, spec.source) for spec in self._origin.mounts],
        }
        return tail(tables, self._rows.count, about, self._size)

    def _end(self, tables: Tables) -> None:
        self._file.seek(self._size)
        self._file.truncate()
        self._file.write(self._tail(tables))
        self._file.flush()

    def _shadowed(self, tables: Tables) -> tuple["array[int]", int]:
        """The files that have the name of a folder beside them, and the sum of their sizes."""
        found, size = array("I"), 0
        with closing(Layout(self._path)) as layout:
            for record in tables.folders:
                if not record.child_count or not (record.plain_blocks or record.escaped_blocks):
                    continue
                files = Directory(layout, record)
                for child in range(record.first_child, record.first_child + record.child_count):
                    name = layout.path(layout.folder(child)).rpartition("/")[2]
                    number = files.number_of(name)
                    if number is not None:
                        found.append(number)
                        segment, row = layout.segment_of(number)
                        size += segment.sizes.at(layout.data, row)
        return array("I", sorted(found)), size

    def abandon(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
