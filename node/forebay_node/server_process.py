"""One server process for one mount: start it, hear what it says, wait for its end.

It inherits the channels of the mount's connection; secrets go over standard input, and the answer whether
it can begin comes over standard output.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from forebay_node.fuse.__main__ import FAILED, KEYS, PREPARED
from forebay_protocol.dataset import KEYS_FILE
from forebay_protocol.errors import WorkerUnavailable

SILENCE = 30.0
"""Seconds after which a server that says nothing is taken to hang; it gives signs of life six times as often."""

_RESUME_PATIENCE = 5.0
"""A server that resumes has its index; where that is lost, readers wait no longer for another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """What one server is to serve on which node. ``patience``: seconds that it may take to get the first index.

    ``secrets`` follow the Dataset's keys, so that a later server has those that are in force.
    """

    source: str
    node: str
    worker_service: str
    secrets: dict[str, str]
    index_folder: Path
    patience: float


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that is not mistaken for a later one with the same id."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """The process that has this id now; None when there is none or only its zombie."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in {"Z", "X"} else cls(pid, int(fields[19]))

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return ProcessIdentity.of(self.pid) == self

    def end(self, patience: float) -> None:
        """Wait for its own end for so long, then ask it to end, then make it."""
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None and self.is_alive():
                os.kill(self.pid, number)
            deadline = time.monotonic() + patience
            while self.is_alive() and time.monotonic() < deadline:
                time.sleep(0.02)


class ServerProcess:
    """One process, from its start to its end."""

    def __init__(self, spec: ServerSpec, channels: Sequence[int], *, resume: bool) -> None:
        """Start it; with ``resume`` it goes on where another one ended."""
        self._spec = spec
        self._patience = _RESUME_PATIENCE if resume else spec.patience
        command = [
            sys.executable, "-m", "forebay_node.fuse", *(f"--channel={channel}" for channel in channels),
            f"--worker={spec.worker_service}", f"--index-dir={spec.index_folder}", f"--patience={self._patience}",
            f"--source={spec.source}", f"--node={spec.node}", *(["--resume"] if resume else []),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=channels,
            start_new_session=True,
            # Its threads come and go with the readers; an arena for each would keep their memory.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_ARENA_MAX": "2"},
        )  # fmt: skip
        self._heard = b""
        self.identity = ProcessIdentity.of(self._process.pid) or ProcessIdentity(self._process.pid, 0)

    def begin(self, mount: Callable[[], None] | None = None) -> None:
        """Let it serve as soon as it is prepared and, if this is given, ``mount`` has mounted what it serves.

        WorkerUnavailable with the server's own sentence when it cannot begin; then it has ended.
        """
        try:
            self._tell(json.dumps(self._spec.secrets) + "\n")
            self._await_prepared()
            if mount is not None:
                mount()
            self._tell("serve\n")
        except BaseException:
            self._process.kill()
            self._process.wait()
            self._close_pipes()
            raise

    def _tell(self, text: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerUnavailable("the mount's server ended before it could begin; its log says why") from error

    def _await_prepared(self) -> None:
        # The server gives up by itself; the margin is for starting it on a busy node.
        line = self._next_line(self._patience + 20.0)
        if line is not None and line.startswith(FAILED):
            raise WorkerUnavailable(line.removeprefix(FAILED))
        if line != PREPARED:
            raise WorkerUnavailable("the mount's server did not become ready; its log says why")

    def wait(self) -> int:
        """Hear what it says until it ends; its exit code, a negative one for a signal.

        One that has not been heard of for `SILENCE` hangs, and all its readers with it: it is made to end.
        """
        while self._next_line(SILENCE) is not None:
            pass
        self._process.kill()
        code = self._process.wait()
        self._close_pipes()
        return code

    def _next_line(self, patience: float) -> str | None:
        """What it says next, with keys put where the next server finds them; None at its end or when it is late."""
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(output, select.POLLIN)
        while True:
            while b"\n" not in self._heard:
                piece = os.read(output, 65536) if poll.poll(1000 * patience) else b""
                if not piece:
                    return None
                self._heard += piece
            line, _, self._heard = self._heard.partition(b"\n")
            said = line.decode()
            if not said.startswith(KEYS):
                return said
            self._spec.secrets[KEYS_FILE] = "\n".join(json.loads(said.removeprefix(KEYS)))

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            # What was not read by a process that is gone cannot be told any more.
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
