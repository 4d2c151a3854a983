"""Tokens and their keys, with real workers: what opens, for how long, and how a key is replaced under load."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest

from forebay.connection import WorkerConnection
from forebay.control import ControlClient
from forebay.pool import ConnectionPool
from forebay.reader import ChunkReader
from forebay.ring import RingHolder
from forebay.trust import Trust, TrustHolder
from forebay_protocol import auth, control
from forebay_protocol.errors import Unauthorized
from forebay_protocol.keys import BLOCK_SIZE, ObjectVersion
from forebay_protocol.wire import ReadRequest
from testkit.sample_cluster import OBJECTS, Make, versions
from testkit.waiting import eventually
from testkit.worker_processes import KEY, WorkerCluster, WorkerProcess

OPEN = {control.HEALTH, control.READY, control.METRICS}
NEW = "fedcba9876543210" * 4
TOLERANCE = 60


def routes() -> list[tuple[str, str]]:
    """Every route that the control API documents."""
    lines = [line.split() for line in (control.__doc__ or "").splitlines() if " /" in line]
    return [(line[0], line[1].replace("{id}", "x")) for line in lines if line[0] in {"GET", "PUT", "POST", "DELETE"}]


def bad_tokens(uid: str) -> dict[str, str]:
    """Tokens that open nothing."""
    now, key = time.time(), KEY.encode()
    version, expiry, signature = auth.mint(key, uid, now).split(".")
    return {
        "none": "",
        "garbage": "v1.9999999999.forged",
        "not ASCII": f"v1.{expiry}.\xe9\xff",
        "expired": auth.mint(key, uid, now - auth.TOKEN_LIFETIME - 2 * TOLERANCE),
        "of another dataset": auth.mint(key, "uid-2", now),
        "of another key": auth.mint(NEW.encode(), uid, now),
        "stretched": f"{version}.{int(expiry) + 1}.{signature}",
    }


def block(one: ObjectVersion) -> ReadRequest:
    """The first block of an object."""
    return ReadRequest(0, one, 0, min(one.size, BLOCK_SIZE))


def test_every_route_and_stream_wants_a_good_token(make: Make) -> None:
    """All but health, readiness and metrics, also routes that do not exist; the data port likewise."""
    cluster = make().start(1)
    worker = cluster.workers[0]
    found = routes()
    assert len(found) > 10

    for name, token in bad_tokens(cluster.document.uid).items():
        for method, route in [*found, ("GET", "/v1/nothing"), ("POST", "/"), ("GET", "/metrics/../v1/status")]:
            status, body = worker.call(method, route, token=token)
            assert (status == 401) == (route not in OPEN), (name, method, route, status)
            assert KEY.encode() not in body
        with pytest.raises(Unauthorized):
            WorkerConnection("127.0.0.1", worker.data_port, lambda given=token: given)  # type: ignore[misc]
    assert worker.status().id == worker.id


def test_what_is_open_names_nothing(make: Make) -> None:
    """Health, readiness and metrics tell figures: no key, secret, bucket, object or dataset."""
    cluster = make().start(1)
    worker = cluster.workers[0]
    snapshot = cluster.wait_for_index()
    for one in versions(snapshot).values():
        worker.read(one)

    text = b"".join(worker.call("GET", route, token="")[1] for route in sorted(OPEN)).decode()

    assert "forebay_worker_" in text
    secrets = [one.secret_access_key for one in cluster.credentials.values()]
    names = [cluster.document.uid, cluster.document.mounts[0].source.removeprefix("s3://").split("/")[0], *OBJECTS]
    assert [one for one in (KEY, *secrets, *names) if one in text] == []


def test_a_stream_ends_with_its_token(make: Make) -> None:
    """A connection lives on, but not beyond its token; a pool goes on with another one."""
    cluster = make().start(1)
    worker = cluster.workers[0]
    one = versions(cluster.wait_for_index())["model/one chunk"]
    brief = auth.mint(KEY.encode(), cluster.document.uid, time.time(), 2 - TOLERANCE)
    tokens = [brief]
    buffer = memoryview(bytearray(BLOCK_SIZE))

    with closing(WorkerConnection("127.0.0.1", worker.data_port, lambda: brief)) as connection:
        connection.read_into(block(one), buffer)
        with pytest.raises(Unauthorized, match="expired"):
            _read_for(30, lambda: connection.read_into(block(one), buffer))
        assert connection.closed

    tokens = [auth.mint(KEY.encode(), cluster.document.uid, time.time(), 1 - TOLERANCE)]
    shown: list[str] = []

    def next_token() -> str:
        shown.append(tokens.pop() if tokens else worker.token())
        return shown[-1]

    with closing(ConnectionPool(next_token)) as pool:
        end = time.monotonic() + 30
        while len(shown) < 2:
            assert time.monotonic() < end
            pool.read_into(worker.member, block(one), buffer)
        assert not pool.avoided(worker.member)


def _read_for(seconds: float, work: Callable[[], object]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        work()


def test_a_stream_ends_with_its_key(make: Make) -> None:
    """A key that is taken away closes what it has opened, data and control."""
    cluster = make().start(1)
    worker = cluster.workers[0]
    one = versions(cluster.wait_for_index())["model/one chunk"]
    buffer = memoryview(bytearray(BLOCK_SIZE))

    with closing(worker.connect()) as connection:
        connection.read_into(block(one), buffer)
        cluster.write_keys(NEW)
        with pytest.raises(Unauthorized, match="key that is in force"):
            _read_for(30, lambda: connection.read_into(block(one), buffer))
    assert worker.call("GET", control.STATUS)[0] == 401


class _Client:
    """A reader as a mount has one, that may ask nobody but the workers; it reads in a thread until closed."""

    def __init__(self, cluster: WorkerCluster, wanted: list[ObjectVersion]) -> None:
        self._uid = cluster.document.uid
        self._wanted = wanted
        self.trust = TrustHolder(self._uid, Trust((KEY.encode(),)))
        seeds = [("127.0.0.1", worker.control_port) for worker in cluster.workers]
        self.ring = RingHolder(self.trust.token, lambda: seeds, on_answer=self.trust.follow)
        self.pool = ConnectionPool(self.trust.token)
        self.reader = ChunkReader(self.ring, self.pool)
        self.problems: list[str] = []
        self.rounds = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.ring.refresh()
        self.ring.start()
        self._thread.start()

    def _read(self) -> None:
        while not self._done.is_set():
            for one in self._wanted:
                try:
                    if self.reader.read(one, 0, one.size) != OBJECTS[one.key]:
                        self.problems.append(f"wrong bytes of {one.key}")
                except Exception as error:  # noqa: BLE001 - whatever it is, it is what must not happen
                    self.problems.append(repr(error))
            self.rounds += 1

    def take_up(self, key: str) -> None:
        """Wait until tokens are signed by this key; the ring is looked at now rather than in 30 s."""

        def signs() -> bool:
            self.ring.want()
            found = auth.verify((KEY.encode(), NEW.encode()), self.trust.token(), self._uid, time.time())
            return found.key == key.encode()

        eventually(signs, timeout=20, what="the client has the new key")

    def go_on(self) -> None:
        """Wait until everything was read twice from now."""
        before = self.rounds
        eventually(lambda: self.rounds > before + 1, timeout=60, what="everything is read again")

    def close(self) -> None:
        """End it."""
        self._done.set()
        self._thread.join(timeout=60)
        self.ring.close()
        self.pool.close()


def _know(workers: list[WorkerProcess], key: str, token: str) -> None:
    """Wait until all workers accept a key."""

    def heard() -> bool:
        seen = [ControlClient("127.0.0.1", one.control_port, lambda: token).status() for one in workers]
        return all(auth.key_id(key.encode()) in one.keys for one in seen)

    eventually(heard, timeout=20, what="all workers know the key")


def test_a_key_is_rotated_under_readers(make: Make) -> None:
    """Announced, promoted, retired: readers that hold only the old key at first see no error and no other bytes."""
    cluster = make().start(2)
    wanted = [one for one in versions(cluster.wait_for_index()).values() if one.size]
    uid = cluster.document.uid
    old_token, new_token = (auth.mint(key.encode(), uid, time.time()) for key in (KEY, NEW))

    with ExitStack() as stack:
        clients = [stack.enter_context(closing(_Client(cluster, wanted))) for _ in range(2)]
        cluster.write_keys(KEY, NEW)
        _know(cluster.workers, NEW, old_token)
        cluster.write_keys(NEW, KEY)
        for client in clients:
            client.take_up(NEW)
        cluster.write_keys(NEW)
        eventually(
            lambda: {one.call("GET", control.STATUS, token=old_token)[0] for one in cluster.workers},
            timeout=20, what="the old key is refused", until=lambda seen: seen == {401},
        )  # fmt: skip
        for client in clients:
            client.go_on()

    assert [problem for client in clients for problem in client.problems] == []
    assert cluster.workers[0].call("GET", control.STATUS, token=new_token)[0] == 200


def test_who_slept_too_long_is_told(make: Make) -> None:
    """A mount whose key was retired meanwhile learns what to do."""
    cluster = make().start(1)
    worker = cluster.workers[0]
    cluster.write_keys(NEW)
    eventually(
        lambda: worker.call("GET", control.STATUS)[0], timeout=20, what="refused", until=lambda code: code == 401
    )
    late = ControlClient("127.0.0.1", worker.control_port, worker.token)

    with pytest.raises(Unauthorized, match="staged with the new one"):
        late.ring()
    with pytest.raises(Unauthorized):
        late.sealed_trust()
