"""What a server tells its successor, in case it is killed: a small table that is written as it changes.

The kernel goes on where it was when a server dies: it has handles, names and folders that the next server must
know. Each change is one appended line; what the kernel was told after it is safe, for a process that is killed
leaves what it has written, and a machine that goes down takes the mount with it.
"""

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

Key = int | str

_COMPACT = 20_000
"""Lines that are no longer of use before the file is written anew."""

_log = logging.getLogger(__name__)


class Journal:
    """Values by kind and key. Thread-safe."""

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        """Begin an empty one at ``path``; with ``resume`` go on with what the predecessor left there."""
        self._path = path
        self._lock = threading.Lock()
        self._lines: dict[tuple[str, Key], bytes] = _read(path) if resume else {}
        self._useless = 0
        self._file = self._rewritten()

    def _rewritten(self) -> int:
        """Replace the file by one that has only what is of use; returns its descriptor."""
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(b"".join(self._lines.values()))
        file = os.open(fresh, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        fresh.replace(self._path)
        self._useless = 0
        return file

    def put(self, kind: str, key: Key, *value: object) -> None:
        """Keep these JSON values; before the kernel is told what follows from them."""
        line = _encoded([kind, key, *value])
        with self._lock:
            replaced = (kind, key) in self._lines
            self._lines[kind, key] = line
            self._append(line, useless=int(replaced))

    def drop(self, kind: str, key: Key) -> None:
        """It is no longer of use."""
        with self._lock:
            if self._lines.pop((kind, key), None) is not None:
                self._append(_encoded([kind, key]), useless=2)

    def _append(self, line: bytes, *, useless: int) -> None:
        if self._file < 0:
            return
        self._useless += useless
        try:
            os.write(self._file, line)
            if self._useless > max(_COMPACT, len(self._lines)):
                old, self._file = self._file, self._rewritten()
                os.close(old)
        except OSError as error:
            # This server knows everything itself; only a successor would give errors for what is missing here.
            _log.warning("the mount's journal cannot be written: %s", error)

    def items(self, kind: str) -> list[tuple[Key, list[Any]]]:
        """Key and values of all of a kind."""
        with self._lock:
            lines = [line for (one, _), line in self._lines.items() if one == kind]
        return [(key, value) for _, key, *value in map(json.loads, lines)]

    def close(self) -> None:
        """Close the file: nobody will resume from here."""
        with self._lock:
            file, self._file = self._file, -1
        os.close(file)


def _encoded(record: list[object]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _read(path: Path) -> dict[tuple[str, Key], bytes]:
    lines: dict[tuple[str, Key], bytes] = {}
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return lines
    # A kill can tear the last line, whose reason the kernel was not told of then.
    for line in raw[: raw.rfind(b"\n") + 1].splitlines(keepends=True):
        kind, key, *value = json.loads(line)
        if value:
            lines[kind, key] = line
        else:
            lines.pop((kind, key), None)
    return lines
