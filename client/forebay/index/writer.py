"""Write one generation of a dataset's listing."""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forebay.index.glob import PathFilter
from forebay.index.naming import is_folder, names_of, split_path
from forebay.index.snapshot import FORMAT, INDEXES, ROOT_INODE, SCHEMA, stable_inode
from forebay.source.base import Listing
from forebay.source.location import parse_source
from forebay_protocol.dataset import MountSpec

_BATCH = 5000
_INSERT = (
    "INSERT INTO entry (inode, parent, name, is_dir, size, mtime_ns, mount, key, version) VALUES (?,?,?,?,?,?,?,?,?)"
)

_Row = tuple[int, int, str, int, int, int, int, str, str]
_Names = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a snapshot is a snapshot of, and which one."""

    dataset_uid: str
    generation: int
    built_at: float
    mounts: Sequence[MountSpec]


class _Mount:
    """One mount while its listing is written."""

    def __init__(self, number: int, spec: MountSpec, mounts: Sequence[MountSpec]) -> None:
        self.number = number
        self.root = split_path(spec.path)
        self.prefix = parse_source(spec.source).key_prefix
        self.filter = PathFilter(spec.include, spec.exclude)
        # As with mounts of a file system, a deeper one hides what lies beneath it.
        self.hiders = tuple(
            root for root in (split_path(other.path) for other in mounts)
            if len(root) > len(self.root) and root[: len(self.root)] == self.root
        )  # fmt: skip

    def hides(self, names: _Names) -> bool:
        return any(names[: len(root)] == root for root in self.hiders)


class SnapshotWriter:
    """Takes listings in index order and leaves a snapshot file; ``finish`` or ``abandon`` ends it."""

    def __init__(self, path: Path, origin: Origin) -> None:
        """Begin an empty file at ``path``."""
        path.unlink(missing_ok=True)
        self._path, self._origin = path, origin
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=MEMORY")
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.executescript(SCHEMA)
        self._connection.execute("BEGIN")
        self._mounts = {spec.name: _Mount(number, spec, origin.mounts) for number, spec in enumerate(origin.mounts)}
        self._folders: dict[_Names, int] = {(): ROOT_INODE}
        self._rows: list[_Row] = []
        self._fingerprint = hashlib.blake2b(digest_size=16)
        self._seen_files = 0
        self._hidden = 0
        for spec in origin.mounts:
            self._digest(spec.name, spec.source, spec.path, *spec.include, "", *spec.exclude)
            self._folder(split_path(spec.path))

    def _digest(self, *parts: str) -> None:
        for part in parts:
            raw = part.encode("utf-8", "surrogateescape")
            self._fingerprint.update(len(raw).to_bytes(4, "big") + raw)

    def _folder(self, names: _Names) -> int:
        """The inode of a folder, which is added with all above it where it is new."""
        inode = self._folders.get(names)
        if inode is None:
            parent = self._folder(names[:-1])
            inode = stable_inode("/" + "/".join(names), "")
            self._folders[names] = inode
            self._rows.append((inode, parent, names[-1], 1, 0, int(self._origin.built_at * 1e9), -1, "", ""))
        return inode

    def add(self, mount_name: str, listing: Listing) -> None:
        """Add one object of a mount, unless the mount's globs leave it out."""
        mount = self._mounts[mount_name]
        below = listing.key[len(mount.prefix) :]
        names = names_of(below)
        if not mount.filter.matches("/".join(names)):
            return
        self._digest(mount_name, listing.key, listing.version, f"{listing.size} {listing.mtime_ns}")
        path = mount.root + names
        if mount.hides(path):
            self._hidden += 1
        elif is_folder(below):
            self._folder(path)
            self._hidden += listing.size > 0
        else:
            parent = self._folder(path[:-1])
            inode = stable_inode("/" + "/".join(path), listing.version)
            self._rows.append(
                (inode, parent, path[-1], 0, listing.size, listing.mtime_ns, mount.number, listing.key, listing.version)
            )
            self._seen_files += 1
        if len(self._rows) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self._connection.executemany(_INSERT, self._rows)
        self._rows.clear()

    def finish(self) -> str:
        """Complete the file; returns the fingerprint, which is equal for equal listings of equal mounts."""
        self._flush()
        execute = self._connection.execute
        # Where an object has the name of a folder, the folder wins.
        execute("CREATE INDEX wins ON entry (parent, name, is_dir)")
        self._hidden += execute(
            "DELETE FROM entry WHERE is_dir = 0 AND EXISTS (SELECT 1 FROM entry AS folder WHERE "
            "folder.parent = entry.parent AND folder.name = entry.name AND folder.is_dir = 1)"
        ).rowcount
        execute("DROP INDEX wins")
        total, count = execute("SELECT coalesce(sum(size), 0), count(*) FROM entry WHERE is_dir = 0").fetchone()
        about = {
            "format": FORMAT,
            "dataset": self._origin.dataset_uid,
            "generation": self._origin.generation,
            "built_at": self._origin.built_at,
            "total_bytes": total,
            "file_count": count,
            "hidden_count": self._hidden,
            "fingerprint": self._fingerprint.hexdigest(),
            "mounts": [(spec.name, spec.path, spec.source) for spec in self._origin.mounts],
        }
        execute("INSERT INTO about VALUES (?)", (json.dumps(about),))
        try:
            self._make_indexes()
        except sqlite3.IntegrityError:
            self._make_unique()
            self._make_indexes()
        execute("COMMIT")
        self._connection.close()
        return self._fingerprint.hexdigest()

    def _make_indexes(self) -> None:
        for statement in INDEXES:
            self._connection.execute(statement)

    def _make_unique(self) -> None:
        """Resolve what hardly ever happens: a store that lists a key twice, and two paths with one hash."""
        execute = self._connection.execute
        execute("DELETE FROM entry WHERE ordinal NOT IN (SELECT min(ordinal) FROM entry GROUP BY parent, name)")
        twice = "SELECT max(ordinal) FROM entry WHERE is_dir = 0 GROUP BY inode HAVING count(*) > 1"
        while execute(f"UPDATE entry SET inode = inode + 1 WHERE ordinal IN ({twice})").rowcount:  # noqa: S608
            pass

    def abandon(self) -> None:
        """Close and remove the file."""
        self._connection.close()
        self._path.unlink(missing_ok=True)
