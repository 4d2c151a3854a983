"""Real cache workers as processes of this machine, commanded over their control API as the operator does it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from forebay.connection import WorkerConnection
from forebay.control import ControlClient
from forebay.index import Snapshot
from forebay.index.packing import unpack
from forebay.tls import ClientTls
from forebay_protocol import control
from forebay_protocol.auth import mint
from forebay_protocol.control import LoadProgress, LoadRequest, WorkerStatus
from forebay_protocol.dataset import Credentials, DatasetDocument, credentials_to_json
from forebay_protocol.keys import ObjectVersion
from forebay_protocol.ring import Layout, Member, MemberState, Ring
from forebay_protocol.wire import Flag, ReadRequest
from testkit.memory_group import MemoryGroup
from testkit.own_network import OwnNetwork
from testkit.waiting import eventually
from testkit.worker_tls import TlsFolder

KEY = "0123456789abcdef" * 4
MIB = 1024 * 1024


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class TierFolder:
    """One tier of a worker; ``path`` None is a folder of its own."""

    medium: str = "Memory"
    quota: int = 512 * MIB
    high: float = 0.95
    low: float = 0.85
    path: Path | None = None
    encrypted: bool = False


class WorkerProcess:
    """One worker; it may be killed and started again on the same folders and ports."""

    def __init__(
        self,
        number: int,
        folder: Path,
        access: Path,
        tiers: tuple[TierFolder, ...],
        *flags: str,
        tls: ClientTls | None = None,
        key: str = KEY,
        group: MemoryGroup | None = None,
        network: OwnNetwork | None = None,
    ) -> None:
        """Nothing runs yet. ``tls``: how to verify the worker, whose flags make it speak TLS; where it is to run."""
        self.tls = tls
        self.key = key
        self.address = "127.0.0.1" if network is None else network.address
        self._surroundings = [place for place in (group, network) if place is not None]
        self.id = f"w{number}"
        self.folder = folder / self.id
        self.folder.mkdir(parents=True)
        self.data_port, self.control_port = free_port(), free_port()
        self.tier_paths = [tier.path or self.folder / f"tier{i}" for i, tier in enumerate(tiers)]
        self.log = self.folder / "log.jsonl"
        self._uid = ""
        self._argv = [sys.executable, "-m", "forebay_worker", "--id", self.id, "--access-dir", str(access)]
        self._argv += ["--state-dir", str(self.folder / "state"), "--address", self.address]
        self._argv += ["--data-port", str(self.data_port), "--control-port", str(self.control_port), *flags]
        for tier, path in zip(tiers, self.tier_paths, strict=True):
            limits = f"quota={tier.quota},high={tier.high},low={tier.low}"
            sealed = "yes" if tier.encrypted else "no"
            self._argv += ["--tier", f"medium={tier.medium},path={path},{limits},encrypted={sealed}"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def member(self) -> Member:
        """The worker as a ring names it."""
        return Member(
            id=self.id, address=self.address, data_port=self.data_port, control_port=self.control_port, capacity=1
        )

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None
        return self._process.pid

    def resident_bytes(self, *, peak: bool = False) -> int:
        """Memory of the process as the kernel counts it: now, or the most that it ever was."""
        wanted = "VmHWM:" if peak else "VmRSS:"
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(wanted))

    def start(self, uid: str) -> None:
        """Start it and wait until its ports are open."""
        self._uid = uid
        roots = [path for path in sys.path if path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
        with self.log.open("ab") as log:
            argv = self._argv
            for place in self._surroundings:
                argv = place.entering(argv)
            self._process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
        eventually(self._is_healthy, timeout=20, interval=0.05, what=f"{self.id} is healthy")

    def _is_healthy(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            return self.call("GET", control.HEALTH)[0] == 200
        except OSError:
            return False

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=20)

    def close(self) -> None:
        """Kill it if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)

    def token(self) -> str:
        """A valid token."""
        return mint(self.key.encode(), self._uid, time.time())

    def call(self, method: str, route: str, body: Any = None, token: str | None = None) -> tuple[int, bytes]:
        """One control request: (status, body)."""
        connection = http.client.HTTPConnection(self.address, self.control_port, timeout=20)
        connection.connect()
        if self.tls is not None:
            connection.sock = self.tls.wrap(connection.sock, self.id)
        try:
            headers = {"Authorization": f"Bearer {token if token is not None else self.token()}"}
            connection.request(method, route, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def status(self) -> WorkerStatus:
        """GET /v1/status."""
        return self.control().status()

    def control(self) -> ControlClient:
        """The control API as clients use it."""
        return ControlClient(self.address, self.control_port, self.token, tls=self.tls)

    def load(self, load_id: str, request: LoadRequest | None = None) -> LoadProgress:
        """Begin a load, or look how far it is."""
        route = f"{control.LOADS}/{load_id}"
        code, body = self.call("GET", route) if request is None else self.call("PUT", route, request.to_json())
        assert code == 200, body
        return LoadProgress.from_json(json.loads(body))

    def snapshot(self) -> Snapshot | None:
        """The worker's newest index."""
        packed, file = self.folder / "fetched-index.packed", self.folder / "fetched-index"
        if self.control().fetch_index(0, packed) is None:
            return None
        unpack(packed, file)
        return Snapshot.open(file)

    def connect(self) -> WorkerConnection:
        """A data connection."""
        return WorkerConnection(self.address, self.data_port, self.token, tls=self.tls)

    def read(self, one: ObjectVersion, flags: Flag = Flag.NONE) -> bytes:
        """All bytes of an object through this worker."""
        whole = bytearray(one.size)
        with closing(self.connect()) as connection:
            for number in one.chunks():
                span = one.chunk_span(number)
                view = memoryview(whole)[span.offset : span.end]
                connection.read_into(ReadRequest(0, one, span.offset, span.length, flags), view)
        return bytes(whole)

    def cache_files(self) -> list[Path]:
        """The sparse files of all tiers."""
        return [file for tier in self.tier_paths for file in sorted((tier / "objects").glob("*/*"))]


@dataclass(slots=True)
class WorkerCluster:
    """Workers of one dataset with the folder that gives them access. Ends them on exit."""

    folder: Path
    document: DatasetDocument
    credentials: Mapping[str, Credentials]
    tiers: tuple[TierFolder, ...] = (TierFolder(),)
    flags: tuple[str, ...] = ()
    workers: list[WorkerProcess] = field(default_factory=list)
    epoch: int = 0
    tls: TlsFolder | None = None
    key: str = KEY
    data_key: str = ""
    group: MemoryGroup | None = None
    networks: tuple[OwnNetwork, ...] = ()
    """Of the first workers; the others are in this machine's."""

    @property
    def access(self) -> Path:
        """The access folder."""
        return self.folder / "access"

    def write_access(self) -> None:
        """Write the access files, each replaced as a whole."""
        self.access.mkdir(exist_ok=True)
        self._write("credentials.json", json.dumps(credentials_to_json(dict(self.credentials))))
        self.write_keys(self.key)
        if self.data_key:
            self.write_data_key(self.data_key)
        self._write("dataset.json", json.dumps(self.document.to_json()))

    def write_keys(self, *keys: str) -> None:
        """Replace the key file; the first key signs."""
        self._write("keys", "".join(f"{key}\n" for key in keys))

    def write_data_key(self, key: str) -> None:
        """Replace the key that encrypts tiers."""
        self.data_key = key
        self._write("data-key", key + "\n")

    def _write(self, name: str, text: str) -> None:
        fresh = self.access / f".{name}"
        fresh.write_text(text)
        fresh.replace(self.access / name)

    def start(self, count: int, layout: Layout = Layout.SHARDED) -> Self:
        """Start so many more workers and publish the ring."""
        self.write_access()
        for _ in range(count):
            flags = self.flags if self.tls is None else (*self.flags, "--tls-dir", str(self.tls.folder))
            client = None if self.tls is None else self.tls.client()
            number = len(self.workers)
            worker = WorkerProcess(
                number,
                self.folder,
                self.access,
                self.tiers,
                *flags,
                tls=client,
                key=self.key,
                group=self.group,
                network=self.networks[number] if number < len(self.networks) else None,
            )
            self.workers.append(worker)
            worker.start(self.document.uid)
        self.publish(layout=layout)
        return self

    def publish(
        self,
        members: list[Member] | None = None,
        layout: Layout = Layout.SHARDED,
        to: list[WorkerProcess] | None = None,
    ) -> Ring:
        """Send a ring of a new epoch to all workers (or to some)."""
        self.epoch += 1
        chosen = members if members is not None else [worker.member for worker in self.workers]
        ring = Ring(epoch=self.epoch, layout=layout, members=tuple(chosen))
        for worker in to or self.workers:
            code, body = worker.call("PUT", control.RING, ring.to_json())
            assert (code, json.loads(body)) == (200, {"epoch": self.epoch})
        return ring

    def wait_for_index(self, least: int = 0, *, timeout: float = 20.0) -> Snapshot:
        """The index once every worker has the same generation, of at least ``least``."""

        def generations() -> set[int]:
            return {worker.status().index.generation for worker in self.workers}

        eventually(
            generations, timeout=timeout, what="one index on all workers",
            until=lambda seen: len(seen) == 1 and min(seen) >= max(least, 1),
        )  # fmt: skip
        snapshot = self.workers[0].snapshot()
        assert snapshot is not None
        return snapshot

    def load_all(
        self, load_id: str = "load", paths: tuple[str, ...] = (), *, timeout: float = 60.0
    ) -> list[LoadProgress]:
        """Load on all workers and wait until all say that it is complete."""
        for worker in self.workers:
            worker.load(load_id, LoadRequest(paths=paths))
        return eventually(
            lambda: [worker.load(load_id) for worker in self.workers], timeout=timeout, what="the load is complete",
            until=lambda reports: all(report.state is control.LoadState.COMPLETE for report in reports),
        )  # fmt: skip

    def cached_bytes(self) -> int:
        """What all workers together say they have."""
        return sum(worker.status().cached_bytes for worker in self.workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.close()


def draining(member: Member) -> Member:
    """The same member, about to leave."""
    return Member(
        id=member.id, address=member.address, data_port=member.data_port, control_port=member.control_port,
        state=MemberState.DRAINING, capacity=member.capacity,
    )  # fmt: skip
