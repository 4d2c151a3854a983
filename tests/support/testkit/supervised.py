"""A mount with its supervisor in a process of its own, as the node plugin has it, and ways to disturb that.

The process that holds a mount's connection must use no file of the mount: when it starts a server, its child closes
what it inherits, and closing such a file waits for the server.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from forebay_node import restarts
from forebay_node.fuse import protocol
from forebay_node.mounts import detach
from forebay_node.server_process import ProcessIdentity, ServerSpec
from forebay_node.supervisor import Supervisor
from forebay_protocol.dataset import DATASET_FILE, KEYS_FILE
from testkit.fuse_mount import DOCUMENT, MountedDataset
from testkit.waiting import eventually

OLD_KERNEL = "old-kernel"
"""The kernel does not know how to send requests again."""
IMPATIENT = "impatient"
"""A mount is given up after 2 s without a server."""


@dataclass
class Supervised:
    """The process, as a test has it. ``pids`` are those of the servers, the newest last."""

    dataset: MountedDataset
    folder: Path
    disturbances: tuple[str, ...] = ()
    pids: list[int] = field(default_factory=list)
    problem: str = ""
    is_live: bool = True

    def __post_init__(self) -> None:
        """Start it and wait for the mount."""
        self.folder.mkdir()
        port = self.dataset.workers[0].member.control_port
        argv = [str(self.dataset.target), str(self.folder), f"127.0.0.1:{port}", *self.disturbances]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testkit.supervised", *argv],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        eventually(lambda: self.pids, timeout=15, interval=0.02, what="a server runs")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                said = json.loads(line)
                if "pid" in said:
                    self.pids.append(said["pid"])
                else:
                    self.problem, self.is_live = said["problem"], said["live"]

    def kill(self, *, wait: bool = True) -> None:
        """Kill the server; wait for the one that follows."""
        number = len(self.pids)
        os.kill(self.pids[-1], signal.SIGKILL)
        if wait:
            eventually(lambda: len(self.pids) > number, timeout=15, interval=0.02, what="another server runs")

    def ask(self) -> None:
        """Have ``problem`` and ``is_live`` told anew."""
        self._command("status")

    def start_servers_with(self, program: str) -> None:
        """From now on servers are this program."""
        self._command(f"program {program}")

    def _command(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Unmount and end it; nothing may be left running."""
        detach(self.dataset.target)
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0
        self._listener.join()
        assert not any(ProcessIdentity.of(pid) for pid in self.pids)


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(target: str, folder: str, service: str, *disturbances: str) -> None:
    """Supervise until standard input is closed."""
    if OLD_KERNEL in disturbances:
        protocol.resend = lambda: protocol.OUT_HEADER.pack(protocol.OUT_HEADER.size, 4242, 0)
    if IMPATIENT in disturbances:
        restarts.PATIENCE = 2.0
    spec = ServerSpec(
        source="forebay:test", node="", worker_service=service, index_folder=Path(folder), patience=5.0,
        secrets={DATASET_FILE: json.dumps(DOCUMENT.to_json()), KEYS_FILE: "k" * 64},
    )  # fmt: skip
    supervisor = Supervisor(spec, Path(target), lambda process: _say(pid=process.pid))
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "program":
            sys.executable = argument
        else:
            _say(problem=supervisor.problem, live=supervisor.is_live)
    supervisor.stop(5.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
