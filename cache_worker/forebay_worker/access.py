"""What a worker may do: the dataset, its credentials and its keys, read from a folder that changes in place.

The kubelet replaces all files at once by swapping a symbolic link. Files that are missing or malformed leave
the last good access in force, and say so as a problem.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from forebay_protocol.auth import Grant, key_id, mint, parse_keys, verify
from forebay_protocol.control import Problem
from forebay_protocol.dataset import (
    CREDENTIALS_FILE,
    DATA_KEY_FILE,
    DATASET_FILE,
    KEYS_FILE,
    Credentials,
    DatasetDocument,
    credentials_from_json,
)
from forebay_protocol.errors import InvalidRequest, Overloaded
from forebay_worker.store.sealing import KEY_SIZE

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One state of the folder."""

    dataset: DatasetDocument
    credentials: dict[str, Credentials]
    keys: tuple[bytes, ...] = field(repr=False)
    data_key: bytes = field(default=b"", repr=False)
    """Encrypts tiers that are to be encrypted; empty where there is none."""

    @property
    def revision(self) -> str:
        """The dataset document's revision."""
        return self.dataset.revision()


def read_access(folder: Path) -> Access:
    """Read the folder; InvalidRequest or OSError when it is not complete."""
    keys_file = folder / KEYS_FILE
    try:
        document = json.loads((folder / DATASET_FILE).read_bytes())
        raw_credentials = json.loads((folder / CREDENTIALS_FILE).read_bytes())
        keys = parse_keys(keys_file.read_text())
        data_key = _data_key(folder / DATA_KEY_FILE)
    except FileNotFoundError as error:
        raise InvalidRequest(f"{Path(str(error.filename)).name} is not there yet") from error
    except ValueError:
        # The parser's own message may quote what it read.
        raise InvalidRequest("a file of the access folder is malformed") from None
    return Access(
        dataset=DatasetDocument.from_json(document), credentials=credentials_from_json(raw_credentials), keys=keys,
        data_key=data_key,
    )  # fmt: skip


def _data_key(path: Path) -> bytes:
    """The data key, if the dataset has one; ValueError when it is none."""
    try:
        key = bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        return b""
    if len(key) != KEY_SIZE:
        raise ValueError("the data key has another length")
    return key


class AccessWatcher:
    """Holds the newest access and tells listeners of changes, in the order in which they were added."""

    def __init__(self, folder: Path, poll_seconds: float) -> None:
        """Nothing is read yet."""
        self._folder = folder
        self._poll_seconds = poll_seconds
        self._listeners: list[Callable[[Access], None]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access", daemon=True)
        self.current: Access | None = None
        self.problem: Problem | None = Problem(reason="AccessMissing", message="the access folder was not read yet")

    def listen(self, listener: Callable[[Access], None]) -> None:
        """Call ``listener`` with every new access."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Look once now, then in the background."""
        self.look()
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            self.look()

    def look(self) -> None:
        """Read the folder and tell the listeners when it says something new."""
        try:
            found = read_access(self._folder)
        except (InvalidRequest, OSError) as error:
            message = error.message if isinstance(error, InvalidRequest) else f"cannot be read ({error.strerror})"
            self.problem = Problem(
                reason="AccessMissing",
                message=f"access folder: {message}; it is filled from the Dataset's access Secret",
            )
            return
        self.problem = None
        if found == self.current:
            return
        self.current = found
        _log.info("access changed", dataset=f"{found.dataset.namespace}/{found.dataset.name}", revision=found.revision)
        for listener in self._listeners:
            listener(found)

    def need(self) -> Access:
        """The newest access; Overloaded while there is none."""
        if self.current is None:
            raise Overloaded("this worker has no dataset yet", retry_after=1.0)
        return self.current

    def token(self) -> str:
        """A token for other workers of the same dataset."""
        access = self.need()
        return mint(access.keys[0], access.dataset.uid, time.time())

    def check(self, token: str) -> Grant:
        """What the token grants when it opens this dataset; Unauthorized otherwise."""
        access = self.need()
        return verify(access.keys, token, access.dataset.uid, time.time())

    def admit(self, token: str) -> "Admission":
        """Let a connection in; Unauthorized when its token does not open this dataset."""
        return Admission(self, token)

    def key_ids(self) -> tuple[str, ...]:
        """The keys that are accepted, the signing one first, by what may be told of them."""
        return () if self.current is None else tuple(key_id(key) for key in self.current.keys)

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)


class Admission:
    """What let a connection in, for as long as it does: connections outlive tokens and keys, rights must not."""

    __slots__ = ("_seen", "_token", "_until", "_watcher", "dataset")

    def __init__(self, watcher: AccessWatcher, token: str) -> None:
        """Unauthorized when the token is not good now."""
        self._watcher = watcher
        self._token = token
        self._look()

    def _look(self) -> None:
        access = self._watcher.need()
        self._until = verify(access.keys, self._token, access.dataset.uid, time.time()).until
        self.dataset = access.dataset.uid
        self._seen = access

    def check(self) -> None:
        """Unauthorized once the token has expired or is signed by a key that was taken away; nearly free before."""
        if self._watcher.current is not self._seen or time.time() > self._until:
            self._look()
