"""One generation of a dataset's listing: an immutable file, mapped and read by many threads.

Row order is index order: mounts as the document lists them, then keys by their UTF-8 bytes.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import merge
from pathlib import Path
from typing import NamedTuple, Self

from forebay.index.directory import Directory, names_of
from forebay.index.glob import PathFilter
from forebay.index.inodes import ROOT_INODE, FileInodes, stable_inode
from forebay.index.layout import DAMAGE, NO_MOUNT, FolderRecord, Layout
from forebay.index.naming import is_escaped, key_of, split_path
from forebay.index.naming import names_of as names_of_key
from forebay.source.location import parse_source
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.keys import ObjectVersion

_FOLDERS_AT_HAND = 4096


class Entry(NamedTuple):
    """A file or folder. Folders have size 0, no version, and no key of their own."""

    name: str
    is_dir: bool
    size: int
    mtime_ns: int
    mount: str
    key: str
    version: str
    inode: int


@dataclass(frozen=True)
class MountPlace:
    """Where a mount of the snapshot shows its source."""

    name: str
    path: str
    source: str

    @cached_property
    def root(self) -> str:
        """The mount's own path, empty for the volume's root."""
        return "".join(f"/{name}" for name in split_path(self.path))

    @cached_property
    def prefix(self) -> str:
        """What all keys of the mount begin with."""
        return parse_source(self.source).key_prefix

    def path_of(self, key: str) -> str:
        """The volume path of a key of this mount; the mount's own path for a key outside of its prefix."""
        below = key[len(self.prefix) :] if key.startswith(self.prefix) else ""
        return self.root + "".join(f"/{name}" for name in names_of_key(below)) or "/"


class _Folder:
    """A folder at hand."""

    def __init__(self, layout: Layout, record: FolderRecord, place: MountPlace | None) -> None:
        self.path = layout.path(record)
        self.inode = stable_inode(self.path, "") if self.path else ROOT_INODE
        self.children = range(record.first_child, record.first_child + record.child_count)
        self.files = Directory(layout, record)
        self.mount = ""
        self._below, self._prefix = "", ""
        if place is not None:
            if not f"{self.path}/".startswith(f"{place.root}/"):
                raise ValueError("a folder outside of its mount")
            self.mount = place.name
            self._below = self.path[len(place.root) + 1 :]
            self._prefix = place.prefix
        self._names = tuple(self._below.split("/")) if self._below else ()
        self._is_plain = not any(map(is_escaped, self._names))
        self._plain_prefix = f"{self._prefix}{self._below}/" if self._below else self._prefix

    def key_of(self, name: str) -> str:
        """The key of a file in here."""
        if self._is_plain and not is_escaped(name):
            return self._plain_prefix + name
        return self._prefix + key_of((*self._names, name))


class Snapshot:
    """Read access to one generation. Thread-safe; it stays readable when the file is unlinked."""

    def __init__(self, path: Path) -> None:
        """Open the file; InvalidRequest when it is not a snapshot of this format."""
        self._layout = Layout(path)
        about = self._layout.about
        try:
            self.dataset = str(about["dataset"])
            self.generation = int(about["generation"])
            self.built_at = float(about["built_at"])
            self.total_bytes = int(about["total_bytes"])
            self.file_count = int(about["file_count"])
            self.hidden_count = int(about["hidden_count"])
            self.fingerprint = str(about["fingerprint"])
            self.places = tuple(MountPlace(str(name), str(path), str(source)) for name, path, source in about["mounts"])
            if not math.isfinite(self.built_at):
                raise ValueError("it was built at no time")
            if not (0 <= self.total_bytes < 2**63 and 0 <= self.file_count <= self._layout.file_count):
                raise ValueError("its totals are impossible")
            self._folder_mtime_ns = int(self.built_at * 1e9)
        except DAMAGE as error:
            self.close()
            raise InvalidRequest(f"not an index: {error}") from error
        self.mounts = tuple(place.name for place in self.places)
        self._place_of = {place.name: place for place in self.places}
        self._at_hand: dict[int, _Folder] = {}
        self._by_inode: dict[int, _Folder] = {}
        self._inodes: FileInodes | None = None
        self._inodes_lock = threading.Lock()

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a snapshot file."""
        return cls(Path(path))

    def _folder(self, number: int) -> _Folder:
        found = self._at_hand.get(number)
        if found is None:
            record = self._layout.folder(number)
            place = None if record.mount == NO_MOUNT else self.places[record.mount]
            found = _Folder(self._layout, record, place)
            if len(self._at_hand) >= _FOLDERS_AT_HAND:
                self._at_hand.clear()
                self._by_inode.clear()
            self._at_hand[number] = found
        return found

    def _folder_of(self, inode: int) -> _Folder | None:
        folder = self._by_inode.get(inode)
        if folder is None:
            number = self._layout.folder_number(inode)
            if number is None:
                return None
            folder = self._folder(number)
            if folder.inode != inode:
                raise ValueError("an inode that is another folder's")
            self._by_inode[inode] = folder
        return folder

    def _folder_entry(self, path: str) -> Entry:
        name = path.rpartition("/")[2]
        inode = stable_inode(path, "") if path else ROOT_INODE
        return Entry(name, True, 0, self._folder_mtime_ns, "", "", "", inode)

    def _folder_at(self, path: str) -> _Folder | None:
        """The folder of a path (empty for the root)."""
        folder = self._folder_of(stable_inode(path, "") if path else ROOT_INODE)
        return folder if folder is not None and folder.path == path else None

    def _files(self, folder: _Folder, first: int, names: Sequence[str]) -> Iterator[Entry]:
        """The entries of files with consecutive numbers."""
        data, (segment, row) = self._layout.data, self._layout.segment_of(first)
        stop = row + len(names)
        mount, key_of, path = folder.mount, folder.key_of, folder.path
        for name, size, mtime_ns, version in zip(
            names,
            segment.sizes.rows(data, row, stop),
            segment.mtimes.rows(data, row, stop),
            segment.versions.rows(data, row, stop),
            strict=True,
        ):
            inode = stable_inode(f"{path}/{name}", version)
            yield Entry(name, False, size, mtime_ns, mount, key_of(name), version, inode)

    def _file(self, folder: _Folder, number: int, name: str) -> Entry:
        data, (segment, row) = self._layout.data, self._layout.segment_of(number)
        version = segment.versions.at(data, row)
        size, mtime_ns = segment.sizes.at(data, row), segment.mtimes.at(data, row)
        inode = stable_inode(f"{folder.path}/{name}", version)
        return Entry(name, False, size, mtime_ns, folder.mount, folder.key_of(name), version, inode)

    def _child(self, folder: _Folder, name: str) -> Entry | None:
        if not name or "/" in name:
            return None
        # Where an object has the name of a folder, the folder wins.
        if folder.children and (below := self._folder_at(f"{folder.path}/{name}")) is not None:
            return self._folder_entry(below.path)
        number = folder.files.number_of(name)
        return None if number is None else self._file(folder, number, name)

    def lookup(self, parent_inode: int, name: str) -> Entry | None:
        """The child of that name."""
        try:
            folder = self._folder_of(parent_inode)
            return None if folder is None else self._child(folder, name)
        except DAMAGE as error:
            raise _damaged(error) from error

    def children(self, parent_inode: int, after_name: str = "", limit: int = 1000) -> list[Entry]:
        """Up to ``limit`` children in the order of their names, from the one after ``after_name`` on."""
        try:
            folder = self._folder_of(parent_inode)
            return [] if folder is None else self._children(folder, after_name, limit)
        except DAMAGE as error:
            raise _damaged(error) from error

    def _children(self, folder: _Folder, after: str, limit: int) -> list[Entry]:
        found: list[Entry] = []
        kinds = [self._plain_after(folder, after)]
        if escaped := folder.files.escaped_after(after):
            kinds.append(self._file(folder, number, name) for name, number in escaped)
        if folder.children:
            kinds.append(self._folders_after(folder, after))
        # A folder comes before the object of its name, which it hides.
        ordered = kinds[0] if len(kinds) == 1 else merge(*kinds, key=lambda entry: (entry.name, not entry.is_dir))
        for entry in ordered:
            if entry.name <= after:
                if found and found[-1].is_dir and found[-1].name == entry.name:
                    continue
                raise ValueError("names that are not in order")
            after = entry.name
            found.append(entry)
            if len(found) >= limit:
                break
        return found

    def _plain_after(self, folder: _Folder, after: str) -> Iterator[Entry]:
        for first, names in folder.files.plain_after(after):
            yield from self._files(folder, first, names)

    def _folders_after(self, folder: _Folder, after: str) -> Iterator[Entry]:
        start, stop = folder.children.start, folder.children.stop
        while start < stop:
            middle = (start + stop) // 2
            if self._child_path(folder, middle) <= f"{folder.path}/{after}":
                start = middle + 1
            else:
                stop = middle
        for number in range(start, folder.children.stop):
            yield self._folder_entry(self._child_path(folder, number))

    def _child_path(self, folder: _Folder, number: int) -> str:
        path = self._layout.path(self._layout.folder(number))
        parent, _, name = path.rpartition("/")
        if parent != folder.path or not name:
            raise ValueError("a folder in another's place")
        return path

    def entry(self, inode: int) -> Entry | None:
        """The file or folder of that inode; the root is inode 1. See ``prepare_inodes``."""
        try:
            if (folder := self._folder_of(inode)) is not None:
                return self._folder_entry(folder.path)
            found = [
                entry
                for block, row in self._file_inodes().files_like(inode)
                if (entry := self._file_of_block(block, row)).inode == inode
            ]
        except DAMAGE as error:
            raise _damaged(error) from error
        # Two files of one inode cannot be told apart: better none of them than the wrong one.
        return found[0] if len(found) == 1 else None

    def prepare_inodes(self) -> None:
        """Make the table of files by inode, as ``entry`` does when it first needs it: 2 s for a million files."""
        try:
            self._file_inodes()
        except DAMAGE as error:
            raise _damaged(error) from error

    def _file_inodes(self) -> FileInodes:
        with self._inodes_lock:
            if self._inodes is None:
                self._inodes = FileInodes(self._layout)
            return self._inodes

    def _file_of_block(self, number: int, row: int) -> Entry:
        block = self._layout.block(number)
        return self._file(self._folder(block.folder), block.first + row, names_of(self._layout, block)[row])

    def find(self, path: str) -> Entry | None:
        """The file or folder at a volume path."""
        names = split_path(path)
        try:
            if not names:
                return self._folder_entry("")
            folder = self._folder_at("".join(f"/{name}" for name in names[:-1]))
            return None if folder is None else self._child(folder, names[-1])
        except DAMAGE as error:
            raise _damaged(error) from error

    def files(self, paths: Sequence[str] = ()) -> Iterator[tuple[str, Entry]]:
        """All files that any of the globs over volume paths selects (all files without one), in index order."""
        wanted = PathFilter(paths)
        try:
            numbers = sorted(range(self._layout.block_count), key=lambda number: self._layout.block(number).first)
            for number in numbers:
                block = self._layout.block(number)
                folder = self._folder(block.folder)
                entries = self._files(folder, block.first, names_of(self._layout, block))
                for file, entry in enumerate(entries, block.first):
                    path = f"{folder.path}/{entry.name}"
                    if file not in self._layout.shadowed and wanted.matches(path):
                        yield path, entry
        except DAMAGE as error:
            raise _damaged(error) from error

    def object(self, entry: Entry) -> ObjectVersion:
        """What a file's bytes are cached as."""
        return ObjectVersion(self.dataset, entry.mount, entry.key, entry.version, entry.size)

    def in_version(self, entry: Entry, version: str, size: int, mtime_ns: int) -> Entry:
        """A file's entry as a generation would have it that lists this version."""
        inode = stable_inode(self._place_of[entry.mount].path_of(entry.key), version)
        return entry._replace(version=version, size=size, mtime_ns=mtime_ns, inode=inode)

    def shows(self, one: ObjectVersion) -> bool:
        """Whether this generation has exactly this version of the object."""
        place = self._place_of.get(one.mount)
        if place is None or one.dataset != self.dataset:
            return False
        entry = self.find(place.path_of(one.key))
        return entry is not None and not entry.is_dir and self.object(entry) == one

    def close(self) -> None:
        """Unmap the file; no method may be called any more."""
        self._layout.close()


def _damaged(error: Exception) -> InvalidRequest:
    return InvalidRequest(f"the index is damaged: {error}")
