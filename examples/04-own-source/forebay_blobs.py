"""A source of one's own: the rows of a table of blobs, as files. ``blobs://database/prefix``.

The table: ``CREATE TABLE blob (key TEXT PRIMARY KEY, version INTEGER NOT NULL, changed REAL NOT NULL, data BLOB)``,
in the file ``<database>.db`` of the folder that BLOBS_FOLDER names. Whoever overwrites a row gives it a new version.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from forebay.source import Listing, parse_source
from forebay_protocol.dataset import Credentials, MountSpec
from forebay_protocol.errors import InvalidRequest, ObjectChanged, ObjectMissing, SourceMissing, SourceUnavailable


class BlobSource:
    """The rows whose key begins with the mount's prefix."""

    def __init__(self, mount: MountSpec, credentials: Credentials | None) -> None:
        """Refuse early what can never work; nothing is opened yet."""
        location = parse_source(mount.source)
        folder = os.environ.get("BLOBS_FOLDER")
        if not folder or not location.container.isidentifier() or credentials is not None:
            raise InvalidRequest("blobs:// needs BLOBS_FOLDER, a database whose name is a word, and no credentials")
        self._file = Path(folder) / f"{location.container}.db"
        self._prefix = location.key_prefix

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection for one call; SQLite's errors leave under Forebay's names."""
        if not self._file.exists():
            raise SourceMissing(f"there is no {self._file.name}; create it or correct the source")
        try:
            with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)) as database:
                yield database
        except sqlite3.Error as error:
            raise SourceUnavailable(f"{self._file.name}: {error}") from error

    def list(self, prefix_below_mount: str = "", delimiter: bool = False) -> Iterator[Listing]:
        """All rows below the prefix, in the order of their keys' bytes; each folder once, with a delimiter."""
        prefix = self._prefix + prefix_below_mount
        with self._database() as database:
            rows = database.execute(
                "SELECT key, length(data), version, changed FROM blob WHERE substr(key, 1, ?) = ? "
                "ORDER BY CAST(key AS BLOB)",
                (len(prefix), prefix),
            ).fetchall()
        former = ""
        for key, size, version, changed in rows:
            folder, slash, _ = key[len(prefix) :].partition("/")
            if not delimiter or not slash:
                yield Listing(key, size, str(version), int(changed) * 1_000_000_000)
            elif folder != former:
                former = folder
                yield Listing(f"{prefix}{folder}/", 0, "", 0)

    def read_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview) -> None:
        """Version and bytes come from one statement, so they belong together."""
        with self._database() as database:
            row = database.execute(
                "SELECT version, length(data), substr(data, ?, ?) FROM blob WHERE key = ?",
                (offset + 1, len(buffer), key),
            ).fetchone()
        if row is None:
            raise ObjectMissing(f"{key!r} was deleted")
        if (str(row[0]), row[1]) != (version, size):
            raise ObjectChanged(f"{key!r} was overwritten; open the file again")
        buffer[:] = row[2]

    def probe(self) -> None:
        """Look whether there is a table."""
        with self._database() as database:
            database.execute("SELECT 1 FROM blob LIMIT 1").fetchone()

    def close(self) -> None:
        """Nothing is kept open."""
