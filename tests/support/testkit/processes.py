"""Daemons that outlive us, and how to know them again: id and start time, cgroup, a marker in the environment."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from testkit import cgroups

MARKER = "FOREBAY_TESTKIT"
"""The environment variable that names the cluster in each daemon and, inherited, in each container shim."""

# The daemon records itself before it becomes what it shall be: whoever kills us in between, `down` finds it.
_LAUNCH = """
set -e
ulimit -n "$(ulimit -H -n)"
echo $$ > "$1"
read -r stat < /proc/$$/stat
echo "$stat" > "$2.new"
mv "$2.new" "$2"
shift 2
exec "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """What to start."""

    role: str
    """Its name in the state folder: `kube-apiserver`, `node-1.kubelet`."""
    argv: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    group: str = "control"
    """The cgroup below the cluster's `system` group: one per node, so that a node can be ended as a whole."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that is surely the one we mean: ids are used again, start times are not."""

    pid: int
    start_ticks: int


def parse_stat(stat: str) -> tuple[Identity, str]:
    """Read identity and state from a /proc/PID/stat line; the command in it may hold spaces and brackets."""
    pid = int(stat.split(" ", 1)[0])
    fields = stat[stat.rindex(")") + 2 :].split()
    return Identity(pid, int(fields[19])), fields[0]


def running(pid: int) -> Identity | None:
    """The identity of a process that runs now; None for one that is gone or only waits to be reaped."""
    try:
        identity, state = parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in {"Z", "X"} else identity


def end(
    identities: Iterable[Identity], *, grace_seconds: float, first: signal.Signals = signal.SIGTERM
) -> list[Identity]:
    """Ask processes to end, then make them; return those that live on (a task stuck in the kernel)."""
    left = [one for one in identities if running(one.pid) == one]
    for number, seconds in ((first, grace_seconds), (signal.SIGKILL, 10.0)):
        if not left:
            break
        left = _signal_and_wait(left, number, seconds)
    return left


def _signal_and_wait(targets: list[Identity], number: signal.Signals, seconds: float) -> list[Identity]:
    """Send one signal to each and wait until all are gone or time is up."""
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        handles: list[tuple[Identity, int]] = []
        for one in targets:
            try:
                handle = os.pidfd_open(one.pid)
            except ProcessLookupError:
                continue
            stack.callback(os.close, handle)
            # Compared after opening: from here on the handle cannot come to mean another process.
            if running(one.pid) == one:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)
                handles.append((one, handle))
        for _, handle in handles:
            waiter = select.poll()
            waiter.register(handle, select.POLLIN)
            waiter.poll(max(0.0, deadline - time.monotonic()) * 1000)
    return [one for one, _ in handles if running(one.pid) == one]


class ProcessTable:
    """The daemons of one cluster, by role."""

    def __init__(self, name: str, state_dir: Path) -> None:
        self._name = name
        self._folder = state_dir / "processes"

    @property
    def roles(self) -> list[str]:
        """Every role that was ever recorded and not forgotten."""
        return (
            sorted(file.name for file in self._folder.glob("*") if file.suffix != ".new")
            if self._folder.is_dir()
            else []
        )

    def identity(self, role: str) -> Identity | None:
        """The running process of a role, or None."""
        try:
            recorded, _ = parse_stat((self._folder / role).read_text())
        except FileNotFoundError:
            return None
        return recorded if running(recorded.pid) == recorded else None

    def start(self, daemon: Daemon) -> Identity:
        """Start a daemon in its cgroup unless it runs; it is recorded before its program begins."""
        there = self.identity(daemon.role)
        if there is not None:
            return there
        self._folder.mkdir(parents=True, exist_ok=True)
        record = self._folder / daemon.role
        record.unlink(missing_ok=True)
        procs = cgroups.leaf_for_daemons(PurePosixPath(self._name, "system", daemon.group))
        daemon.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(Path.home()),
            **daemon.environment,
            MARKER: self._name,
        }
        with daemon.log.open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", "/bin/sh", "-c", _LAUNCH, "sh", str(procs), str(record), *daemon.argv],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
            )
        return self._await_record(daemon, record)

    def _await_record(self, daemon: Daemon, record: Path) -> Identity:
        """Wait for the daemon to have recorded itself."""
        for _ in attempts(5.0, 0.005):
            if record.exists():
                return parse_stat(record.read_text())[0]
        raise RuntimeError(f"{daemon.role} did not start; see {daemon.log}")

    def stop(self, role: str, *, grace_seconds: float = 10.0, first: signal.Signals = signal.SIGTERM) -> bool:
        """End the daemon of a role; tell whether it ran."""
        there = self.identity(role)
        if there is not None and end([there], grace_seconds=grace_seconds, first=first):
            raise RuntimeError(f"{role} (process {there.pid}) does not end")
        (self._folder / role).unlink(missing_ok=True)
        return there is not None

    def send(self, role: str, number: signal.Signals) -> None:
        """Send a signal to the running daemon of a role."""
        there = self.identity(role)
        if there is None:
            raise ProcessLookupError(f"{role} does not run")
        os.kill(there.pid, number)


def attempts(seconds: float, interval: float = 0.1) -> Iterator[int]:
    """Count attempts until the time is up, with a pause between them: for conditions that offer nothing to wait on."""
    deadline = time.monotonic() + seconds
    number = 0
    while True:
        yield number
        if time.monotonic() >= deadline:
            return
        number += 1
        time.sleep(interval)


def marked(name: str) -> dict[int, str]:
    """All running processes that carry the cluster's marker: id and command."""
    wanted = f"{MARKER}={name}".encode()
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "comm").read_text().strip()
        except OSError:
            # It ended while we looked, or is a kernel thread.
            continue
        if wanted in variables and running(int(folder.name)) is not None:
            found[int(folder.name)] = command
    return found
