"""Names, attributes and folders, answered from the newest generation of the index.

Nodes are the index's own inodes, which say path and version: nothing needs to be remembered for a node, and a
new version of a file is a new node. What must be remembered is in which folders the kernel looked, to tell it
there what changed.
"""

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from forebay.index import Entry, Snapshot
from forebay.source.base import Listing
from forebay_node.fuse import protocol
from forebay_node.fuse.journal import Journal
from forebay_node.fuse.newer import NewerVersions, is_same
from forebay_protocol.dataset import DatasetDocument

VALID = 3600
"""Seconds for which the kernel keeps names and attributes; changes are told to it."""

_PAGE = 512
_LOOKED_INTO = "looked-into"


@dataclass(slots=True, eq=False)
class Generation:
    """A snapshot in use; it is closed when a newer one has replaced it and nobody uses it any more."""

    snapshot: Snapshot
    users: int = 0
    replaced: bool = False


@dataclass(slots=True, eq=False)
class OpenFolder:
    """A folder being listed: always in the generation in which it was opened."""

    generation: Generation
    inode: int
    page_starts: list[tuple[int, str]] = field(default_factory=lambda: [(0, "")])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def entries(self, position: int) -> Iterator[tuple[int, Entry]]:
        """The entries from a position (counted from 0) on, each with its position."""
        snapshot = self.generation.snapshot
        with self.lock:
            start, after = max(one for one in self.page_starts if one[0] <= position)
        while page := snapshot.children(self.inode, after, _PAGE):
            for number, entry in enumerate(page, start):
                if number >= position:
                    yield number, entry
            start, after = start + len(page), page[-1].name
            with self.lock:
                if start > self.page_starts[-1][0]:
                    self.page_starts.append((start, after))


class Tree:
    """The file system's names over changing generations. Thread-safe."""

    def __init__(self, snapshot: Snapshot, document: DatasetDocument, journal: Journal) -> None:
        """Show this snapshot, with owner and modes as the document says; the journal may have a predecessor's."""
        self._lock = threading.Lock()
        self._current = Generation(snapshot)
        self._journal = journal
        self._looked_into = {int(folder) for folder, _ in journal.items(_LOOKED_INTO)}
        self._document = document
        self._newer = NewerVersions(journal)

    @contextmanager
    def current(self) -> Iterator[Snapshot]:
        """The newest snapshot; it stays open within the context."""
        generation = self._acquire()
        try:
            yield generation.snapshot
        finally:
            self._release(generation)

    def _acquire(self) -> Generation:
        with self._lock:
            self._current.users += 1
            return self._current

    def _release(self, generation: Generation) -> None:
        with self._lock:
            generation.users -= 1
            done = generation.replaced and generation.users == 0
        if done:
            generation.snapshot.close()

    def replace(self, snapshot: Snapshot) -> list[bytes]:
        """Show another generation; returns the notifications that tell the kernel what changed.

        They are sent by the caller, and again a little later, for answers from the old generation may be on
        their way to the kernel now.
        """
        with self._lock:
            old, self._current = self._current, Generation(snapshot)
            self._newer.keep_since(snapshot.built_at)
            old.users += 1
            old.replaced = True
            folders = sorted(self._looked_into)
        try:
            return [message for folder in folders for message in changes(old.snapshot, snapshot, folder)]
        finally:
            self._release(old)

    def _look_into(self, folder: int) -> None:
        if folder not in self._looked_into:
            self._looked_into.add(folder)
            self._journal.put(_LOOKED_INTO, folder, True)

    def look_up(self, parent: int, name: bytes) -> Entry | None:
        """The child of that name; None also for names that no key can have."""
        self._look_into(parent)
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        with self.current() as snapshot:
            return self._newer.of(snapshot.lookup(parent, text))

    def entry(self, node: int) -> Entry | None:
        """The file or folder of a node in the newest generation."""
        with self.current() as snapshot:
            return snapshot.entry(node) or self._newer.entry(node)

    def has_changed(self, entry: Entry, found: Listing | None) -> bool:
        """Whether the source has something else (or nothing) instead of this file; then that is shown from now on."""
        if is_same(entry, found):
            return False
        with self.current() as snapshot:
            self._newer.learn(snapshot, entry, found)
        return True

    def open_folder(self, node: int) -> OpenFolder:
        """Begin to list a folder; ``close_folder`` ends it."""
        self._look_into(node)
        return OpenFolder(self._acquire(), node)

    def close_folder(self, folder: OpenFolder) -> None:
        """End listing a folder."""
        self._release(folder.generation)

    def attributes(self, entry: Entry) -> protocol.Attributes:
        """What stat shows."""
        document = self._document
        mode = stat.S_IFDIR | document.dir_mode if entry.is_dir else stat.S_IFREG | document.file_mode
        links = 2 if entry.is_dir else 1
        return protocol.Attributes(
            entry.inode, mode, entry.size, entry.mtime_ns, document.owner_uid, document.owner_gid, links
        )

    def close(self) -> None:
        """Close the newest snapshot as soon as nobody uses it."""
        with self._lock:
            self._current.users += 1
            self._current.replaced = True
        self._release(self._current)

    def list_plain(self, folder: OpenFolder, position: int, size: int) -> bytes:
        """READDIR: as many names from the position on as fit into ``size`` bytes."""
        answer = bytearray()
        for cookie, name, entry in _with_dots(folder, position):
            kind = stat.S_IFDIR if entry is None or entry.is_dir else stat.S_IFREG
            inode = folder.inode if entry is None else entry.inode
            record = protocol.dirent(inode, cookie, name, kind >> 12)
            if len(answer) + len(record) > size:
                break
            answer += record
        return bytes(answer)

    def list_plus(self, folder: OpenFolder, position: int, size: int) -> bytes:
        """READDIRPLUS: names with their attributes."""
        answer = bytearray()
        for cookie, name, entry in _with_dots(folder, position):
            if entry is None:
                # A node of 0 says: only the name; the kernel knows the dots itself.
                record = bytes(protocol.ENTRY_OUT.size + protocol.ATTR.size)
                record += protocol.dirent(folder.inode, cookie, name, stat.S_IFDIR >> 12)
            else:
                attributes = self.attributes(entry)
                record = protocol.entry_reply(attributes, VALID)
                record += protocol.dirent(entry.inode, cookie, name, attributes.mode >> 12)
            if len(answer) + len(record) > size:
                break
            answer += record
        return bytes(answer)


def _with_dots(folder: OpenFolder, position: int) -> Iterator[tuple[int, bytes, Entry | None]]:
    """Cookie, name and entry of what comes at and after a position; the two dots come first and have no entry."""
    for number, dots in ((0, b"."), (1, b"..")):
        if position <= number:
            yield number + 1, dots, None
    for number, entry in folder.entries(max(0, position - 2)):
        yield number + 3, entry.name.encode(), entry


def changes(old: Snapshot, new: Snapshot, folder: int) -> Iterator[bytes]:
    """The notifications for one folder in which the kernel looked."""
    before, after = _walk(old, folder), _walk(new, folder)
    left, right = next(before, None), next(after, None)
    changed = False
    while left is not None or right is not None:
        if right is None or (left is not None and left.name.encode() < right.name.encode()):
            gone, left, kept = left, next(before, None), None
        elif left is None or right.name.encode() < left.name.encode():
            gone, right, kept = right, next(after, None), None
        else:
            gone = left if left.inode != right.inode else None
            kept = right if left.inode == right.inode and left.mtime_ns != right.mtime_ns else None
            left, right = next(before, None), next(after, None)
        if gone is not None:
            changed = True
            yield protocol.inval_entry(folder, gone.name.encode())
        if kept is not None:
            yield protocol.inval_inode(kept.inode, attributes_only=True)
    yield protocol.inval_inode(folder, attributes_only=not changed)


def _walk(snapshot: Snapshot, folder: int) -> Iterator[Entry]:
    after = ""
    while page := snapshot.children(folder, after, _PAGE):
        yield from page
        after = page[-1].name
