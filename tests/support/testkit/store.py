"""A real S3 server (MinIO) in a network namespace of its own, behind a link of limited rate, with its own log."""

import json
import secrets
import signal
import sys
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from testkit import binaries, packages, store_log
from testkit.artifacts import locked
from testkit.cluster.network import Network, limit_rate
from testkit.cluster.teardown import Teardown
from testkit.commands import run
from testkit.ledger import Kind, Ledger
from testkit.processes import Daemon, ProcessTable, attempts
from testkit.progress import Progress
from testkit.s3client import Answer, Credentials, S3Client
from testkit.settings import Settings, cache_folder, from_environment

PORT = 9000
DEFAULT_MBIT = 1000
_CABLE = 1000
_OWN = {store_log.MARKS, "minio"}
"""Our own marks, and questions whether the server is ready."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the server's own record has it."""

    method: str
    operation: str
    """S3's name of it: GetObject, ListObjectsV2."""
    bucket: str
    key: str
    range: str
    """The Range header as sent, or nothing."""
    if_match: str
    status: int
    bytes_sent: int
    """Bytes of the body that the server handed to the connection: less than asked where the client went away."""
    client: str
    user_agent: str
    time: str


class Store:
    """The store. Like the cluster, all its state is in files: any number of objects may speak for it.

    `down` of the cluster removes the store too. MinIO refuses `//`, `.` and `..` in keys and parts of over 255 bytes.
    """

    def __init__(self, settings: Settings | None = None, progress: Progress | None = None) -> None:
        self.settings = settings or from_environment()
        self.progress = progress or Progress()
        self._processes = ProcessTable(self.settings.name, self.settings.state_dir)
        self._netns = f"{self.settings.prefix}-store"
        self._folder = self.settings.data_dir / "store"
        self._log = self._folder / "requests.jsonl"
        self._credentials_file = self.settings.state_dir / "store-credentials.json"

    @property
    def endpoint(self) -> str:
        """The address for clients on this machine and in pods on every node."""
        return f"http://{self.settings.store_address}:{PORT}"

    @property
    def address(self) -> str:
        """The IP address."""
        return str(self.settings.store_address)

    @property
    def credentials(self) -> Credentials:
        """The keys of the store's owner."""
        document: dict[str, Any] = json.loads(self._credentials_file.read_text())
        return Credentials(document["access_key"], document["secret_key"])

    @property
    def access_key(self) -> str:
        """The identity of the store's owner."""
        return self.credentials.access_key

    @property
    def secret_key(self) -> str:
        """The secret of the store's owner."""
        return self.credentials.secret_key

    @property
    def client(self) -> S3Client:
        """A client as the store's owner, to be closed by who takes it."""
        return S3Client(self.address, PORT, self.credentials)

    def up(self, mbit: int = DEFAULT_MBIT) -> None:
        """Start the server behind a link of this rate, or whatever of it does not run."""
        with locked(cache_folder() / f".{self.settings.name}.lock"):
            self._up(mbit)

    def _up(self, mbit: int) -> None:
        """As `up`, with the lock held."""
        if self._processes.identity("store.minio") and self._processes.identity("store.log") and self._answers():
            self.set_rate(mbit)
            return
        packages.ensure_commands(packages.COMMANDS, self.progress)
        Teardown(self.settings, self.progress).remove_stale()
        programs = binaries.fetch(self.progress)
        with self.progress.step(f"S3 server behind {mbit} Mbit/s"):
            network = Network(self.settings, Ledger(self.settings.state_dir))
            network.ensure_bridge()
            network.ensure_namespace(self._netns, _CABLE, self.settings.store_address)
            network.route_to_every_node(self._netns)
            self.set_rate(mbit)
            self._make_credentials()
            (self._folder / "data").mkdir(parents=True, exist_ok=True)
            Ledger(self.settings.state_dir).record(Kind.CGROUP, self.settings.name)
            self._log.touch()
            self._start_log()
            self._start_server(programs.minio)

    def start(self) -> None:
        """Start the server again after `stop`."""
        self._start_server(binaries.fetch(self.progress).minio)

    def stop(self) -> None:
        """End the server: connections are refused. Buckets and log stay."""
        self._processes.stop("store.minio")

    def kill(self) -> None:
        """End the server in the middle of whatever it does."""
        self._processes.stop("store.minio", first=signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server: connections are taken and nothing answers."""
        self._processes.send("store.minio", signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        self._processes.send("store.minio", signal.SIGCONT)

    def set_rate(self, mbit: int | None) -> None:
        """Limit what the store sends, over all clients; None takes the limit away. What it receives is not limited."""
        limit_rate(self._netns, mbit)

    def request(
        self,
        method: str,
        bucket: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Path = b"",
    ) -> Answer:
        """Send one signed request as the store's owner."""
        with self.client as client:
            return client.request(method, bucket, key, query=query, headers=headers, body=body)

    def create_bucket(self, bucket: str) -> None:
        """Make a bucket, unless it is there."""
        self.request("PUT", bucket).expect(200, 409)

    def put_bytes(self, bucket: str, key: str, body: bytes) -> None:
        """Put one object."""
        self.request("PUT", bucket, key, body=body).expect(200)

    def put_file(self, bucket: str, key: str, file: Path) -> None:
        """Put a file as one object."""
        self.request("PUT", bucket, key, body=file).expect(200)

    def put_many(self, bucket: str, objects: Iterable[tuple[str, bytes | Path]], threads: int = 8) -> None:
        """Put many objects, several at a time; they are taken from the iterable when there is room for them."""
        room = threading.Semaphore(2 * threads)
        with self.client as client, ThreadPoolExecutor(threads) as pool:

            def put(key: str, body: bytes | Path) -> None:
                try:
                    client.request("PUT", bucket, key, body=body).expect(200)
                finally:
                    room.release()

            running: list[Future[None]] = []
            for key, body in objects:
                room.acquire()
                running.append(pool.submit(put, key, body))
            for future in running:
                future.result()

    def get(self, bucket: str, key: str) -> bytes:
        """The bytes of an object."""
        return self.request("GET", bucket, key).expect(200).body

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object; one that is gone is fine."""
        self.request("DELETE", bucket, key).expect(204, 404)

    def delete_bucket(self, bucket: str) -> None:
        """Delete a bucket with everything in it; one that is gone is fine."""
        self.request("DELETE", bucket, headers={"x-minio-force-delete": "true"}).expect(204, 404)

    def mark(self) -> int:
        """The place in the log after every request that has ended until now."""
        self._flush_log()
        return self._log.stat().st_size

    def log_since(self, mark: int = 0) -> list[Request]:
        """The requests that ended since a mark, in the server's own log."""
        self._flush_log()
        with self._log.open("rb") as file:
            file.seek(mark)
            lines = file.read().decode("utf-8", "surrogatepass").split("\n")
        documents = [json.loads(line) for line in lines if line]
        found = [_parse(document) for document in documents if store_log.ATTACHED not in document]
        return [request for request in found if request.bucket not in _OWN]

    def _flush_log(self) -> None:
        """Wait until everything before now is in the log: records come in order, so a request of ours marks the place.

        Two: the record of a request is made just after its last byte was sent, perhaps after the first mark.
        """
        for _ in range(2):
            token = secrets.token_hex(16)
            begin = self._log.stat().st_size
            self.request("HEAD", store_log.MARKS, token)
            for _ in attempts(20.0, 0.01):
                with self._log.open("rb") as file:
                    file.seek(begin)
                    if token.encode() in file.read():
                        break
            else:
                raise RuntimeError(f"no records of the S3 server arrive in {self._log}: is it stopped, or paused?")

    def _answers(self) -> bool:
        """Tell whether the server is ready."""
        try:
            answer = self.request("GET", "minio", "health/ready")
        except (OSError, FileNotFoundError):
            return False
        return answer.status == 200

    def _make_credentials(self) -> None:
        """Make the owner's keys, once per cluster, readable by root only."""
        if self._credentials_file.exists():
            return
        fresh = self._credentials_file.with_suffix(".new")
        fresh.touch(mode=0o600)
        document = {"access_key": f"owner-{secrets.token_hex(6)}", "secret_key": secrets.token_urlsafe(30)}
        fresh.write_text(json.dumps(document))
        fresh.rename(self._credentials_file)

    def _inside(self) -> list[str]:
        """The command that enters the store's network namespace."""
        return ["nsenter", f"--net=/run/netns/{self._netns}", "--"]

    def _start_log(self) -> None:
        """Start the recorder."""
        credentials = self.credentials
        environment = {
            store_log.ACCESS_KEY: credentials.access_key,
            store_log.SECRET_KEY: credentials.secret_key,
            "PYTHONPATH": str(Path(store_log.__file__).resolve().parents[1]),
        }
        argv = [*self._inside(), sys.executable, "-m", "testkit.store_log", str(PORT), str(self._log)]
        log = self._daemon_log("store.log")
        self._processes.start(Daemon(role="store.log", argv=argv, log=log, environment=environment, group="store"))

    def _start_server(self, program: Path) -> None:
        """Start MinIO, and let clients in only when the recorder is attached: no request goes unrecorded."""
        if self._processes.identity("store.minio") is not None:
            return
        begin = self._log.stat().st_size
        barrier = [*self._inside(), "iptables", "-w"]
        rule = ["INPUT", "-i", "eth0", "-p", "tcp", "--dport", str(PORT), "-j", "REJECT", "--reject-with", "tcp-reset"]
        run([*barrier, "-F", "INPUT"])
        run([*barrier, "-A", *rule])
        credentials = self.credentials
        environment = {
            "MINIO_ROOT_USER": credentials.access_key,
            "MINIO_ROOT_PASSWORD": credentials.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_SCANNER_SPEED": "slowest",
            # Else MinIO refuses a folder on the root file system.
            "MINIO_CI_CD": "on",
        }
        argv = [*self._inside(), str(program), "server", "--quiet", f"--address=:{PORT}", str(self._folder / "data")]
        log = self._daemon_log("store.minio")
        self._processes.start(Daemon(role="store.minio", argv=argv, log=log, environment=environment, group="store"))
        self._await_attached(begin)
        run([*barrier, "-F", "INPUT"])
        if not self._answers():
            raise RuntimeError(f"the S3 server does not answer; see {log}")

    def _await_attached(self, begin: int) -> None:
        """Wait until the recorder says that it is attached to the server that was just started."""
        for _ in attempts(30.0, 0.02):
            with self._log.open("rb") as file:
                file.seek(begin)
                if f'{{"{store_log.ATTACHED}"'.encode() in file.read():
                    return
            if self._processes.identity("store.minio") is None:
                break
        raise RuntimeError(f"the S3 server does not become ready; see {self._daemon_log('store.minio')}")

    def _daemon_log(self, role: str) -> Path:
        """The log file of a daemon."""
        return self.settings.data_dir / "log" / f"{role}.log"


def _parse(document: dict[str, Any]) -> Request:
    """One line of the log."""
    return Request(**{field.name: document[field.name] for field in fields(Request)})
