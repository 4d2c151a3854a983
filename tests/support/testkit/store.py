"""A real S3 server (MinIO) in a network namespace of its own, behind a link of limited rate, with its own log."""

import json
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testkit import binaries, packages, store_log
from testkit.artifacts import locked
from testkit.cluster.network import Network
from testkit.commands import run
from testkit.ledger import Kind, Ledger
from testkit.processes import Daemon, ProcessTable, attempts
from testkit.progress import Progress
from testkit.s3client import Answer, Credentials, S3Client
from testkit.settings import Settings, cache_folder, from_environment

PORT = 9000
DEFAULT_MBIT = 1000
_LOG_PORT = 9009
_CABLE = 1000
_MARKS = "forebay-testkit-marks"
"""Requests to this bucket, which does not exist, mark places in the log."""
_METHODS = {
    "Get": "GET",
    "List": "GET",
    "Select": "POST",
    "Head": "HEAD",
    "Delete": "DELETE",
    "Remove": "DELETE",
    "Post": "POST",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the server's own audit log has it."""

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
    def access_key(self) -> str:
        """The identity of the store's owner."""
        return self._credentials().access_key

    @property
    def secret_key(self) -> str:
        """The secret of the store's owner."""
        return self._credentials().secret_key

    @property
    def client(self) -> S3Client:
        """A client as the store's owner."""
        return S3Client(self.address, PORT, self._credentials())

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
        programs = binaries.fetch(self.progress)
        with self.progress.step(f"S3 server behind {mbit} Mbit/s"):
            network = Network(self.settings, Ledger(self.settings.state_dir))
            network.ensure_bridge()
            network.ensure_namespace(self._netns, _CABLE, self.settings.store_address)
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
        device = ["tc", "-netns", self._netns]
        run([*device, "qdisc", "delete", "dev", "eth0", "root"], check=False)
        if mbit is not None:
            run([*device, "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "htb", "default", "10"])
            limit = ["htb", "rate", f"{mbit}mbit", "burst", "128k", "cburst", "128k"]
            run([*device, "class", "add", "dev", "eth0", "parent", "1:", "classid", "1:10", *limit])

    def create_bucket(self, bucket: str) -> None:
        """Make a bucket, unless it is there."""
        client = self.client
        client.expect(client.request("PUT", bucket), 200, 409)

    def put_bytes(self, bucket: str, key: str, body: bytes) -> None:
        """Put one object."""
        client = self.client
        client.expect(client.request("PUT", bucket, key, body=body), 200)

    def put_file(self, bucket: str, key: str, file: Path) -> None:
        """Put a file as one object."""
        client = self.client
        client.expect(client.request("PUT", bucket, key, body=file), 200)

    def put_many(self, bucket: str, objects: Iterator[tuple[str, bytes | Path]], threads: int = 8) -> None:
        """Put many objects, several at a time; they are taken from the iterator when there is room for them."""
        client = self.client
        room = threading.Semaphore(2 * threads)

        def put(key: str, body: bytes | Path) -> None:
            try:
                client.expect(client.request("PUT", bucket, key, body=body), 200)
            finally:
                room.release()

        with ThreadPoolExecutor(threads) as pool:
            running: list[Future[None]] = []
            for key, body in objects:
                room.acquire()
                running.append(pool.submit(put, key, body))
            for future in running:
                future.result()

    def get(self, bucket: str, key: str) -> bytes:
        """The bytes of an object."""
        client = self.client
        return client.expect(client.request("GET", bucket, key), 200).body

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object; one that is gone is fine."""
        client = self.client
        client.expect(client.request("DELETE", bucket, key), 204, 404)

    def delete_bucket(self, bucket: str) -> None:
        """Delete a bucket with everything in it; one that is gone is fine."""
        client = self.client
        answer = client.request("DELETE", bucket, headers={"x-minio-force-delete": "true"})
        client.expect(answer, 204, 404)

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
        found = [_parse(json.loads(line)) for line in lines if line]
        return [request for request in found if request.bucket != _MARKS]

    def _flush_log(self) -> None:
        """Wait until everything before now is in the log: records come in order, so a request of ours marks the place.

        Two: the record of a request is made just after its last byte was sent.
        """
        client = self.client
        for _ in range(2):
            token = secrets.token_hex(16)
            begin = self._log.stat().st_size
            client.request("HEAD", _MARKS, token)
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
            answer: Answer = self.client.request("GET", "minio", "health/ready")
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

    def _credentials(self) -> Credentials:
        """Read the owner's keys."""
        document: dict[str, Any] = json.loads(self._credentials_file.read_text())
        return Credentials(document["access_key"], document["secret_key"])

    def _inside(self) -> list[str]:
        """The command that enters the store's network namespace."""
        return ["nsenter", f"--net=/run/netns/{self._netns}", "--"]

    def _start_log(self) -> None:
        """Start the receiver of the audit records."""
        script = str(Path(store_log.__file__).resolve())
        argv = [*self._inside(), sys.executable, script, str(_LOG_PORT), str(self._log)]
        self._processes.start(Daemon(role="store.log", argv=argv, log=self._daemon_log("store.log"), group="store"))

    def _start_server(self, program: Path) -> None:
        """Start MinIO with the keys in its environment, and wait until it is ready."""
        credentials = self._credentials()
        environment = {
            "MINIO_ROOT_USER": credentials.access_key,
            "MINIO_ROOT_PASSWORD": credentials.secret_key,
            "MINIO_AUDIT_WEBHOOK_ENABLE_TESTKIT": "on",
            "MINIO_AUDIT_WEBHOOK_ENDPOINT_TESTKIT": f"http://127.0.0.1:{_LOG_PORT}/",
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_SCANNER_SPEED": "slowest",
            # Else MinIO refuses a folder on the root file system.
            "MINIO_CI_CD": "on",
        }
        argv = [
            *self._inside(),
            str(program),
            "server",
            "--quiet",
            f"--address={self.address}:{PORT}",
            str(self._folder / "data"),
        ]
        daemon = Daemon(
            role="store.minio", argv=argv, log=self._daemon_log("store.minio"), environment=environment, group="store"
        )
        self._processes.start(daemon)
        for _ in attempts(30.0, 0.05):
            if self._answers():
                return
            if self._processes.identity("store.minio") is None:
                break
        raise RuntimeError(f"the S3 server does not become ready; see {self._daemon_log('store.minio')}")

    def _daemon_log(self, role: str) -> Path:
        """The log file of a daemon."""
        return self.settings.data_dir / "log" / f"{role}.log"


def _parse(document: dict[str, Any]) -> Request:
    """One line of the log."""
    operation = str(document["operation"])
    method = next((method for prefix, method in _METHODS.items() if operation.startswith(prefix)), "PUT")
    return Request(
        method=method,
        operation=operation,
        bucket=document["bucket"],
        key=document["key"],
        range=document["range"],
        if_match=document["if_match"],
        status=document["status"],
        bytes_sent=document["bytes_sent"],
        client=document["client"],
        user_agent=document["user_agent"],
        time=document["time"],
    )
