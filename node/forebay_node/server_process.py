"""Start and end the process that serves one mount.

The descriptor of /dev/fuse is opened here and inherited, secrets go over standard input, and the answer
whether the mount can begin comes over standard output. A copy of the descriptor stays with the plugin while
the process lives, so that a server could be replaced without unmounting.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from forebay_node.fuse.__main__ import FAILED, PREPARED
from forebay_protocol.errors import WorkerUnavailable

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """What one server is to serve on which node. ``patience``: seconds that it may take to get the first index."""

    source: str
    node: str
    worker_service: str
    secrets: Mapping[str, str]
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


def start(spec: ServerSpec, mount: Callable[[int], None]) -> ProcessIdentity:
    """Start a server, and once it is prepared let ``mount`` mount the descriptor that it serves.

    WorkerUnavailable with the server's own sentence when it cannot begin.
    """
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        process = _spawn(spec, device)
        try:
            _await_prepared(process, spec.patience)
            mount(device)
            _tell(process, "serve\n")
        except BaseException:
            process.kill()
            process.wait()
            _close_pipes(process)
            raise
    except BaseException:
        os.close(device)
        raise
    threading.Thread(target=_reap, args=(process, device, spec.source), daemon=True).start()
    return ProcessIdentity.of(process.pid) or ProcessIdentity(process.pid, 0)


def _spawn(spec: ServerSpec, device: int) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "forebay_node.fuse", f"--fd={device}", f"--worker={spec.worker_service}",
        f"--index-dir={spec.index_folder}", f"--patience={spec.patience}", f"--source={spec.source}",
        f"--node={spec.node}",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(device,), text=True, start_new_session=True,
        # Its threads come and go with the readers; an arena for each would keep their memory.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_ARENA_MAX": "2"},
    )  # fmt: skip
    _tell(process, json.dumps(dict(spec.secrets)) + "\n")
    return process


def _tell(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(text)
        process.stdin.flush()
    except BrokenPipeError as error:
        raise WorkerUnavailable("the mount's server ended before it could begin; its log says why") from error


def _await_prepared(process: subprocess.Popen[str], patience: float) -> None:
    assert process.stdout is not None
    # The server gives up by itself; the margin is for starting it on a busy node.
    readable, _, _ = select.select([process.stdout], [], [], patience + 20.0)
    line = process.stdout.readline().strip() if readable else ""
    if line.startswith(FAILED):
        raise WorkerUnavailable(line.removeprefix(FAILED))
    if line != PREPARED:
        raise WorkerUnavailable("the mount's server did not become ready; its log says why")


def _close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _reap(process: subprocess.Popen[str], device: int, source: str) -> None:
    """Wait for the server's end; then nobody serves the connection, and closing it turns waiting into errors."""
    code = process.wait()
    os.close(device)
    _close_pipes(process)
    _log.log(logging.INFO if code == 0 else logging.ERROR, "the server of %s ended with %d", source, code)
