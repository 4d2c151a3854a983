"""Two real workers of two tenants before a real store, and somebody who tries what he can."""

import json
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import pytest

from forebay.connection import WorkerConnection
from forebay_protocol import auth, control, wire
from forebay_protocol.dataset import Credentials, DatasetDocument
from forebay_protocol.errors import ForebayError, Unauthorized
from forebay_protocol.keys import BLOCK_SIZE, ObjectVersion
from forebay_protocol.wire import Flag, ReadRequest
from testkit.buckets import Bucket
from testkit.proofs import Proof
from testkit.worker_processes import KEY, MIB, WorkerCluster, WorkerProcess

MINE = {"mine/a": os.urandom(3 * BLOCK_SIZE + 7), "mine/sub/b": os.urandom(1000)}
THEIRS = {"theirs/secret": os.urandom(2 * BLOCK_SIZE), "mine-too/secret": os.urandom(5000)}
KEYS = {"mine": KEY, "theirs": "fedcba9876543210" * 4}

ROUTES = [("GET", route) for route in (control.STATUS, control.INDEX, control.RING, control.TRUST)]
ROUTES += [("PUT", control.RING), ("PUT", f"{control.LOADS}/x")]


@pytest.fixture
def tenants(bucket: Bucket, keys: Credentials, tmp_path: Path) -> Iterator[dict[str, WorkerCluster]]:
    """Two datasets over one bucket, each with a worker, a prefix and a key of its own; both workers hold all bytes."""
    bucket.put({**MINE, **THEIRS})
    made = {}
    for name, key in KEYS.items():
        (tmp_path / name).mkdir()
        mounts = (bucket.mount(name),)
        document = DatasetDocument(uid=f"uid-{name}", namespace=name, name="data", refresh_seconds=None, mounts=mounts)
        made[name] = WorkerCluster(tmp_path / name, document, {"data": keys}, key=key).start(1)
    for cluster in made.values():
        cluster.wait_for_index()
        cluster.load_all()
    yield made
    for cluster in made.values():
        cluster.__exit__()


def _etag(bucket: Bucket, key: str) -> str:
    return str(bucket.client.head_object(Bucket=bucket.name, Key=key)["ETag"]).strip('"')


def _first_block(worker: WorkerProcess, one: ObjectVersion, flags: Flag = Flag.NONE) -> bytes:
    length = min(one.size, BLOCK_SIZE)
    buffer = memoryview(bytearray(length))
    with closing(worker.connect()) as connection:
        connection.read_into(ReadRequest(0, one, 0, length, flags), buffer)
    return bytes(buffer)


def test_a_token_opens_one_tenants_dataset(tenants: dict[str, WorkerCluster], bucket: Bucket) -> None:
    """With all that there is to know but the other's key: no route, no stream, no name leads to the other's bytes."""
    mine, theirs = tenants["mine"].workers[0], tenants["theirs"].workers[0]
    secret = "theirs/secret"
    version, size = _etag(bucket, secret), len(THEIRS[secret])

    for cluster, worker in ((tenants["theirs"], theirs), (tenants["mine"], mine)):
        other = next(one for one in tenants.values() if one is not cluster)
        forged = auth.mint(other.key.encode(), cluster.document.uid, time.time())
        for token in (other.workers[0].token(), forged):
            for method, route in ROUTES:
                assert worker.call(method, route, {}, token=token)[0] == 401
            with pytest.raises(Unauthorized):
                WorkerConnection("127.0.0.1", worker.data_port, lambda shown=token: shown)  # type: ignore[misc]

    names = [
        secret,
        f"mine/../{secret}",
        f"../{secret}",
        f"mine//../{secret}",
        "mine-too/secret",
        f"/{secret}",
        f"./{secret}",
    ]
    attempts = [ObjectVersion("uid-theirs", "data", secret, version, size)]
    attempts += [ObjectVersion("uid-mine", "data", name, version, size) for name in names]
    attempts += [ObjectVersion("uid-mine", mount, secret, version, size) for mount in ("", "..", "theirs", "data/../x")]
    for one in attempts:
        for flags in (Flag.NONE, Flag.PEER, Flag.CACHED_ONLY, Flag.PEER | Flag.CACHED_ONLY):
            with pytest.raises(ForebayError):
                _first_block(mine, one, flags)

        assert mine.call("POST", control.NEWEST, asdict(one))[0] not in {200, 500}

    right = ObjectVersion("uid-theirs", "data", secret, version, size)
    assert _first_block(theirs, right) == THEIRS[secret][:BLOCK_SIZE]


NAMES = [
    "../../escaped",
    "/etc/passwd",
    "a\0b",
    "..",
    "mine/../../x",
    "x" * 60_000,
    "\udcff\udc80",
    "mine/\n",
    "%2e%2e%2f",
    "-rf",
    "",
]


def test_names_never_become_paths(tenants: dict[str, WorkerCluster], tmp_path: Path) -> None:
    """Whatever a request calls its mount, key, version or load: files are named by digests or by us."""
    worker = tenants["mine"].workers[0]
    before = _files(tmp_path)
    for name in NAMES:
        for one in (
            ObjectVersion("uid-mine", "data", name, "v", 10),
            ObjectVersion("uid-mine", name[:1000], "mine/a", name[:1000], 10),
            ObjectVersion("uid-mine", "data", f"mine/{name[:1000]}", name[:1000], 10),
        ):
            with pytest.raises(ForebayError):
                _first_block(worker, one)
            code, _ = worker.call("POST", control.NEWEST, asdict(one))
            assert code not in {200, 500}, one
        quoted = quote(name[:200], safe="", errors="surrogateescape")
        worker.call("PUT", f"{control.LOADS}/{quoted}", {"paths": [name[:200]], "generation": 0})
        worker.call("GET", f"{control.LOADS}/{quoted}")

    new = {path.name for path in _files(tmp_path) - before}
    assert new <= {"loads.json"}
    for path in worker.cache_files():
        assert re.fullmatch("[0-9a-f]{64}", path.name)
        assert path.parent.name == path.name[:2]
    assert not Path("/escaped").exists()


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_nobody_can_write_into_a_cache(tenants: dict[str, WorkerCluster]) -> None:
    """Workers pull: there is no operation and no route by which bytes get in."""
    worker = tenants["mine"].workers[0]
    one = ObjectVersion("uid-mine", "data", "mine/a", "forged", BLOCK_SIZE)
    held = worker.status().held_bytes
    files = {path: path.read_bytes() for path in worker.cache_files()}

    for op in range(256):
        if op == wire.Op.READ:
            continue
        request = bytearray(wire.encode_request(ReadRequest(1, one, 0, BLOCK_SIZE)))
        request[4] = op
        with socket.create_connection(("127.0.0.1", worker.data_port), timeout=20) as stream, suppress(OSError):
            stream.sendall(wire.encode_hello(worker.token()) + request + bytes(BLOCK_SIZE))
            stream.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: stream.recv(65536), b""))
            assert len(answer) <= 2 * wire.RESPONSE.size + wire.MAX_MESSAGE
    for method in ("PUT", "POST", "PATCH"):
        for route in (
            "/v1/index",
            "/v1/status",
            "/v1/trust",
            "/v1/chunks/x",
            f"/v1/objects/{one.object_id}",
            "/metrics",
        ):
            status, _ = worker.call(method, route, {"data": "x"})
            assert status in {202, 404, 405}, (method, route, status)

    assert worker.status().held_bytes == held
    assert {path: path.read_bytes() for path in worker.cache_files()} == files


class _Attacker:
    """Sends what is nearly right, with a good token or without."""

    def __init__(self, worker: WorkerProcess, seed: int) -> None:
        self._worker = worker
        self._random = random.Random(seed)
        self._good = ObjectVersion("uid-mine", "data", "mine/a", "v", 3 * BLOCK_SIZE + 7)

    def attack(self) -> str:
        """One of them; its kind."""
        kind = self._random.choice((self.noise, self.hello, self.request, self.http, self.http_body))
        kind()
        return kind.__name__

    def _bytes(self, most: int = 300) -> bytes:
        return self._random.randbytes(self._random.randrange(most))

    def _spoil(self, raw: bytes) -> bytes:
        spoiled = bytearray(raw)
        for _ in range(self._random.randrange(1, 6)):
            spoiled[self._random.randrange(len(spoiled))] = self._random.randrange(256)
        return bytes(spoiled[: self._random.randrange(len(spoiled) + 1)] if self._random.random() < 0.3 else spoiled)

    def _say(self, port: int, raw: bytes) -> None:
        """Send, say that this is all, and take what comes until the worker closes."""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
            try:
                stream.sendall(raw)
                stream.shutdown(socket.SHUT_WR)
                while stream.recv(1 << 20):
                    pass
            except TimeoutError:
                raise
            except OSError:
                # The worker has ended the stream already.
                return

    def noise(self) -> None:
        """Random bytes, to either port."""
        self._say(self._random.choice((self._worker.data_port, self._worker.control_port)), self._bytes(5000))

    def hello(self) -> None:
        """A hello that is spoiled, or promises a token of any length."""
        raw = self._spoil(wire.encode_hello(self._worker.token()))
        if self._random.random() < 0.3:
            raw = wire.HELLO.pack(wire.HELLO_MAGIC, self._random.randrange(2**32)) + self._bytes()
        self._say(self._worker.data_port, raw)

    def request(self) -> None:
        """A good hello and requests of which one is spoiled."""
        read = ReadRequest(1, self._good, 0, BLOCK_SIZE, Flag(self._random.randrange(256)))
        good = wire.encode_request(read)
        bad = self._spoil(good)
        if self._random.random() < 0.4:
            sizes = [self._random.choice((0, 1, 2**31, 2**63, 2**64 - 1, BLOCK_SIZE)) for _ in range(2)]
            body = good[wire.REQUEST.size :]
            length = self._random.choice((0, 1, BLOCK_SIZE, 2**32 - 1))
            bad = wire.REQUEST.pack(wire.REQUEST_MAGIC, 1, 0, len(body), 2, sizes[0], sizes[1], length) + body
        self._say(self._worker.data_port, wire.encode_hello(self._worker.token()) + good + bad + good)

    def http(self) -> None:
        """A request line and headers of which some bytes are spoiled."""
        head = f"GET /v1/status HTTP/1.1\r\nHost: w\r\nAuthorization: Bearer {self._worker.token()}\r\n\r\n".encode()
        self._say(self._worker.control_port, self._spoil(head))

    def http_body(self) -> None:
        """A good token, and a body or query that is not what the route wants."""
        bodies = [self._bytes(), b"[" * 50_000, b"{}", b"null", b'{"epoch": 1e999, "members": []}', b'{"epoch": -1}']
        strange = {"dataset": "uid-mine", "mount": "data", "key": "mine/a", "version": "v", "size": 5}
        strange[self._random.choice(list(strange))] = self._random.choice(
            ([], {}, None, -1, 1e999, "\ud800", "\r\nX: y")
        )
        bodies.append(json.dumps(strange).encode())
        bodies += [b'{"paths": 7, "generation": 0}', b'{"paths": ["\\ud800"], "generation": 0}', b'"' + b"a" * 100_000]
        body = self._random.choice(bodies)
        route = self._random.choice(
            (
                control.RING,
                f"{control.LOADS}/fuzz",
                control.INDEX + "?have=" + "9" * 5000,
                control.TRUST,
                "/v1/%ff%00",
                control.NEWEST,
                control.NEWEST,
            )
        )
        charset = self._random.choice(("", "; charset=utf-16", "; charset=nonsense", "; charset=\xe9"))
        method = self._random.choice(("PUT", "GET", "POST", "DELETE", "NONSENSE"))
        head = (
            f"{method} {route} HTTP/1.1\r\nHost: w\r\nAuthorization: Bearer {self._worker.token()}\r\n"
            f"Content-Type: application/json{charset}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._say(self._worker.control_port, head.encode("latin-1") + body)


@pytest.mark.proof("hostile-input", quick=300, full=30_000)
def test_a_worker_survives_whatever_is_sent_to_its_ports(
    tenants: dict[str, WorkerCluster], proof: Proof, bucket: Bucket
) -> None:
    """A worker to which anything was sent answers on, from the memory that it had, and no thread of it has failed."""
    worker = tenants["mine"].workers[0]
    attacker = _Attacker(worker, seed=7)
    one = ObjectVersion("uid-mine", "data", "mine/a", _etag(bucket, "mine/a"), len(MINE["mine/a"]))
    assert worker.read(one) == MINE[one.key]
    before = worker.resident_bytes()

    for _ in range(proof.rounds):
        proof.counts[attacker.attack()] += 1

    assert worker.read(one) == MINE[one.key]
    assert worker.status().problems == ()
    assert worker.resident_bytes() - before < 64 * MIB
    assert "Bearer" not in worker.log.read_text()
    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    assert [line for line in lines if line.get("level") in {"error", "critical"} or "exception" in line] == []
