"""One generation of a dataset's listing: an immutable SQLite file, read by many threads.

Row order is index order: mounts as the document lists them, then keys by their UTF-8 bytes.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import LifoQueue
from typing import Any, Self
from urllib.parse import quote

from forebay.index.glob import PathFilter
from forebay.index.naming import names_of, split_path
from forebay.source.location import parse_source
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.keys import ObjectVersion

ROOT_INODE = 1
FORMAT = 1
_CONNECTIONS = 4

SCHEMA = """
CREATE TABLE entry (
    ordinal INTEGER PRIMARY KEY,
    inode INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    name TEXT NOT NULL,
    is_dir INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    mount INTEGER NOT NULL,
    key TEXT NOT NULL,
    version TEXT NOT NULL
);
CREATE TABLE about (document TEXT NOT NULL);
"""
INDEXES = (
    "CREATE UNIQUE INDEX IF NOT EXISTS by_name ON entry (parent, name)",
    "CREATE UNIQUE INDEX IF NOT EXISTS by_inode ON entry (inode)",
)

_COLUMNS = "name, is_dir, size, mtime_ns, mount, key, version, inode"


def stable_inode(path: str, version: str) -> int:
    """63 bits that stay the same while path and version do, and are never 0 or the root's."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(path.encode("utf-8", "surrogateescape"))
    digest.update(b"\0")
    digest.update(version.encode("utf-8", "surrogateescape"))
    return max(int.from_bytes(digest.digest(), "big") >> 1, ROOT_INODE + 1)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder. Folders have size 0, no version, and no key of their own."""

    name: str
    is_dir: bool
    size: int
    mtime_ns: int
    mount: str
    key: str
    version: str
    inode: int


@dataclass(frozen=True, slots=True)
class MountPlace:
    """Where a mount of the snapshot shows its source."""

    name: str
    path: str
    source: str

    def path_of(self, key: str) -> str:
        """The volume path of a key of this mount; the mount's own path for a key outside of its prefix."""
        prefix = parse_source(self.source).key_prefix
        below = key[len(prefix) :] if key.startswith(prefix) else ""
        return "/" + "/".join((*split_path(self.path), *names_of(below)))


class Snapshot:
    """Read access to one generation. Open handles stay valid when the file is unlinked."""

    def __init__(self, path: Path) -> None:
        """Open the file; InvalidRequest when it is not a snapshot of this format."""
        uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        # All are opened now: the file may lose its name to a newer generation before a thread needs one.
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue()
        self._connections: list[sqlite3.Connection] = []
        try:
            for _ in range(_CONNECTIONS):
                connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
                self._connections.append(connection)
                connection.execute("SELECT 1 FROM about")
                self._idle.put(connection)
            about = self._about()
            self.dataset: str = about["dataset"]
            self.generation: int = about["generation"]
            self.built_at: float = about["built_at"]
            self.total_bytes: int = about["total_bytes"]
            self.file_count: int = about["file_count"]
            self.hidden_count: int = about["hidden_count"]
            self.fingerprint: str = about["fingerprint"]
            self.places = tuple(MountPlace(*place) for place in about["mounts"])
        except (sqlite3.Error, TypeError, KeyError, ValueError, IndexError) as error:
            self.close()
            raise InvalidRequest(f"not an index snapshot: {error}") from error
        except InvalidRequest:
            self.close()
            raise
        self.mounts = tuple(place.name for place in self.places)
        self._place_of = {place.name: place for place in self.places}

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a snapshot file."""
        return cls(Path(path))

    def _about(self) -> Any:
        about = json.loads(self._rows("SELECT document FROM about", ())[0][0])
        if about["format"] != FORMAT:
            raise InvalidRequest(f"the index has format {about['format']}; this program reads format {FORMAT}")
        return about

    def _rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        connection = self._idle.get()
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise InvalidRequest(f"the index is damaged: {error}") from error
        finally:
            self._idle.put(connection)

    def _one(self, condition: str, values: Sequence[Any]) -> Entry | None:
        rows = self._rows(f"SELECT {_COLUMNS} FROM entry WHERE {condition}", values)  # noqa: S608 - constants only
        return self._entry(rows[0]) if rows else None

    def _entry(self, row: Any) -> Entry:
        name, is_dir, size, mtime_ns, mount, key, version, inode = row
        try:
            return Entry(
                name, bool(is_dir), size, mtime_ns, self.mounts[mount] if mount >= 0 else "", key, version, inode
            )  # fmt: skip
        except (TypeError, IndexError) as error:
            raise InvalidRequest("the index is damaged: an entry of no mount") from error

    def lookup(self, parent_inode: int, name: str) -> Entry | None:
        """The child of that name."""
        return self._one("parent = ? AND name = ?", (parent_inode, name))

    def children(self, parent_inode: int, after_name: str = "", limit: int = 1000) -> list[Entry]:
        """Up to ``limit`` children in the order of their names, from the one after ``after_name`` on."""
        query = f"SELECT {_COLUMNS} FROM entry WHERE parent = ? AND name > ? ORDER BY name LIMIT ?"  # noqa: S608
        return [self._entry(row) for row in self._rows(query, (parent_inode, after_name, limit))]

    def entry(self, inode: int) -> Entry | None:
        """The file or folder of that inode; the root is inode 1."""
        if inode == ROOT_INODE:
            return Entry("", True, 0, int(self.built_at * 1e9), "", "", "", ROOT_INODE)
        return self._one("inode = ?", (inode,))

    def find(self, path: str) -> Entry | None:
        """The file or folder at a volume path."""
        found = self.entry(ROOT_INODE)
        for name in split_path(path):
            if found is None:
                return None
            found = self.lookup(found.inode, name)
        return found

    def files(self, paths: Sequence[str] = ()) -> Iterator[tuple[str, Entry]]:
        """All files that any of the globs over volume paths selects (all files without one), in index order."""
        wanted = PathFilter(paths)
        query = f"SELECT ordinal, {_COLUMNS} FROM entry WHERE is_dir = 0 AND ordinal > ? ORDER BY ordinal LIMIT 1000"  # noqa: S608
        last = 0
        while rows := self._rows(query, (last,)):
            for ordinal, *row in rows:
                entry = self._entry(row)
                path = self._place_of[entry.mount].path_of(entry.key)
                if wanted.matches(path):
                    yield path, entry
                last = ordinal

    def object(self, entry: Entry) -> ObjectVersion:
        """What a file's bytes are cached as."""
        return ObjectVersion(self.dataset, entry.mount, entry.key, entry.version, entry.size)

    def in_version(self, entry: Entry, version: str, size: int, mtime_ns: int) -> Entry:
        """A file's entry as a generation would have it that lists this version."""
        inode = stable_inode(self._place_of[entry.mount].path_of(entry.key), version)
        return replace(entry, version=version, size=size, mtime_ns=mtime_ns, inode=inode)

    def shows(self, one: ObjectVersion) -> bool:
        """Whether this generation has exactly this version of the object."""
        place = self._place_of.get(one.mount)
        if place is None or one.dataset != self.dataset:
            return False
        entry = self.find(place.path_of(one.key))
        return entry is not None and not entry.is_dir and self.object(entry) == one

    def close(self) -> None:
        """Close the connections; no method may be called any more."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()
