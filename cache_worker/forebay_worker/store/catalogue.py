"""The journal of one tier: which chunks are complete, and their checksums.

SQLite with a write-ahead log beside the data, so a tier that forgets its files forgets its catalogue too. A
row is written after its chunk's bytes: a chunk without a row does not exist. After a power failure rows may
be ahead of the bytes; that is why the first use after a start verifies.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from forebay_protocol.keys import ChunkKey, ObjectVersion

FILE = "catalogue.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (dataset TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS object (
    id INTEGER PRIMARY KEY, object_id TEXT NOT NULL UNIQUE,
    mount TEXT NOT NULL, key BLOB NOT NULL, version TEXT NOT NULL, size INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS chunk (
    object INTEGER NOT NULL, number INTEGER NOT NULL, length INTEGER NOT NULL, sums BLOB NOT NULL,
    added INTEGER NOT NULL, PRIMARY KEY (object, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sealed (
    object_id TEXT NOT NULL, number INTEGER NOT NULL, start BLOB NOT NULL, PRIMARY KEY (object_id, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (
    id TEXT PRIMARY KEY, object_id TEXT NOT NULL, chunks INTEGER NOT NULL, unlinked TEXT, room INTEGER NOT NULL
) WITHOUT ROWID;
"""


class Catalogue:
    """The rows of one tier. Thread-safe; errors of the file system appear as sqlite3.Error."""

    def __init__(self, root: Path, dataset: str, key_id: str = "") -> None:
        """Open or begin the catalogue; what belongs to another dataset or key, or cannot be read, is forgotten."""
        self._path = root / FILE
        self._dataset = dataset
        self._owner = f"{dataset} {key_id}".rstrip()
        self._lock = threading.Lock()
        try:
            self._connection, self._added = self._open()
        except (sqlite3.DatabaseError, ValueError):
            # ValueError: what SQLite says of a damaged schema need not be text, nor a number where one was.
            self._connection, self._added = self._open_anew()

    def _open(self) -> tuple[sqlite3.Connection, int]:
        """The connection, and the number of the newest row."""
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            return connection, self._prepare(connection)
        except BaseException:
            # Otherwise its end, whenever that is, would remove the log of the one that comes after it.
            connection.close()
            raise

    def _open_anew(self) -> tuple[sqlite3.Connection, int]:
        for leftover in self._path.parent.glob(f"{FILE}*"):
            leftover.unlink()
        return self._open()

    def begin_anew(self) -> None:
        """Forget everything: what is here cannot be read."""
        with self._lock:
            self._connection.close()
            self._connection, self._added = self._open_anew()

    def _prepare(self, connection: sqlite3.Connection) -> int:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_SCHEMA)
        if connection.execute("SELECT dataset FROM about").fetchall() != [(self._owner,)]:
            connection.executescript(
                "DELETE FROM chunk; DELETE FROM object; DELETE FROM sealed; DELETE FROM lease; DELETE FROM about;"
            )
            connection.execute("INSERT INTO about VALUES (?)", (self._owner,))
        return int(connection.execute("SELECT coalesce(max(added), 0) FROM chunk").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """One for all statements, since each of its own costs; rolled back if any fails, so that the next can begin."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def add(self, one: ObjectVersion, number: int, length: int, sums: bytes) -> None:
        """A chunk is complete."""
        with self._transaction() as execute:
            self._added += 1
            execute(
                "INSERT OR IGNORE INTO object (object_id, mount, key, version, size) VALUES (?, ?, ?, ?, ?)",
                (one.object_id, one.mount, one.key.encode("utf-8", "surrogateescape"), one.version, one.size),
            )
            execute(
                "INSERT OR REPLACE INTO chunk SELECT id, ?, ?, ?, ? FROM object WHERE object_id = ?",
                (number, length, sums, self._added, one.object_id),
            )

    def seal(self, key: ChunkKey, start: bytes) -> None:
        """A chunk is about to be written encrypted, with its counter beginning at ``start``."""
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO sealed VALUES (?, ?, ?)", (*key, start))

    def start(self, key: ChunkKey) -> bytes | None:
        """Where the counter of an encrypted chunk begins; None when the chunk is not here."""
        with self._lock:
            query = "SELECT start FROM sealed WHERE object_id = ? AND number = ?"
            found = self._connection.execute(query, tuple(key)).fetchone()
        return None if found is None else bytes(found[0])

    def remove(self, key: ChunkKey) -> None:
        """A chunk is no more."""
        with self._transaction() as execute:
            execute("DELETE FROM sealed WHERE object_id = ? AND number = ?", tuple(key))
            found = execute("SELECT id FROM object WHERE object_id = ?", (key.object_id,)).fetchone()
            if found is None:
                return
            execute("DELETE FROM chunk WHERE object = ? AND number = ?", (found[0], key.number))
            execute(
                "DELETE FROM object WHERE id = ? AND NOT EXISTS (SELECT 1 FROM chunk WHERE object = id)", (found[0],)
            )

    def chunks(self) -> list[tuple[ObjectVersion, int, int, bytes]]:
        """All chunks, oldest first: (object, number, length, checksums)."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT mount, key, version, size, number, length, sums FROM chunk JOIN object ON object = id "
                "ORDER BY added"
            ).fetchall()
        known: dict[tuple[str, bytes, str, int], ObjectVersion] = {}
        found: list[tuple[ObjectVersion, int, int, bytes]] = []
        for mount, key, version, size, number, length, sums in rows:
            kinds = tuple(map(type, (mount, key, version, size, number, length, sums)))
            if kinds != (str, bytes, str, int, int, int, bytes) or number < 0 or length <= 0:
                raise sqlite3.DatabaseError("a row has values that were never written")
            identity = (mount, key, version, size)
            one = known.get(identity)
            if one is None:
                text = key.decode("utf-8", "surrogateescape")
                one = known[identity] = ObjectVersion(self._dataset, mount, text, version, size)
            found.append((one, number, length, sums))
        return found

    def add_lease(self, lease: str, object_id: str, chunks: int) -> None:
        """Somebody holds the file of an object of so many chunks open."""
        with self._lock:
            self._connection.execute("INSERT INTO lease VALUES (?, ?, ?, NULL, 0)", (lease, object_id, chunks))

    def end_lease(self, lease: str) -> None:
        """Nobody does under this name any more."""
        with self._lock:
            self._connection.execute("DELETE FROM lease WHERE id = ?", (lease,))

    def unlink(self, object_id: str, room: int, name: str) -> None:
        """An object's file is about to lose its name: its chunks are no more, its leases hold ``room`` bytes."""
        with self._transaction() as execute:
            execute("DELETE FROM chunk WHERE object IN (SELECT id FROM object WHERE object_id = ?)", (object_id,))
            execute("DELETE FROM object WHERE object_id = ?", (object_id,))
            execute("DELETE FROM sealed WHERE object_id = ?", (object_id,))
            execute(
                "UPDATE lease SET unlinked = ?, room = ? WHERE object_id = ? AND unlinked IS NULL",
                (name, room, object_id),
            )

    def leases(self) -> list[tuple[str, str, int, str | None, int]]:
        """All leases: (name, object, its chunks, name of the unlinked file if it is one, its room)."""
        with self._lock:
            return self._connection.execute("SELECT id, object_id, chunks, unlinked, room FROM lease").fetchall()

    def close(self) -> None:
        """Write the log back and close."""
        with self._lock:
            self._connection.close()
