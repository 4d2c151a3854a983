"""Connections, pool and reader against a worker that can be told to misbehave."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from forebay.connection import Timeouts, WorkerConnection
from forebay.health import cool_down
from forebay.pool import ConnectionPool
from forebay.reader import ChunkReader, preferred
from forebay.ring import RingHolder
from forebay_protocol import wire
from forebay_protocol.errors import (
    ChecksumMismatch,
    NotCached,
    ObjectChanged,
    SourceUnavailable,
    Unauthorized,
    WorkerUnavailable,
)
from forebay_protocol.keys import BLOCK_SIZE, CHUNK_SIZE, ChunkKey, ObjectVersion, Span
from forebay_protocol.ring import Layout, Member, Ring
from testkit.fake_worker import FakeWorker, version_of
from testkit.waiting import eventually

DATA = os.urandom(CHUNK_SIZE + 5 * BLOCK_SIZE + 77)
ONE = version_of("a", DATA)
QUICK = Timeouts(connect=0.5, answer=0.5)


def token() -> str:
    """What every client here shows."""
    return "t"


@pytest.fixture
def workers() -> Iterator[tuple[FakeWorker, FakeWorker]]:
    """Two workers that both hold the object, in one ring."""
    with FakeWorker("w-0") as first, FakeWorker("w-1") as second:
        for worker in (first, second):
            worker.objects["a"] = DATA
            worker.ring = Ring(epoch=3, members=(first.member, second.member))
        yield first, second


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    """Connections that give up soon."""
    made = ConnectionPool(token, timeouts=QUICK)
    yield made
    made.close()


class Store:
    """The last resort of these tests."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data
        self.reads: list[Span] = []

    def read_into(self, one: ObjectVersion, span: Span, buffer: memoryview) -> None:
        """Fill from memory, or be down."""
        self.reads.append(span)
        if self.data is None:
            raise SourceUnavailable(f"the store is down, {one.key} cannot be read")
        buffer[:] = self.data[span.offset : span.end]

    def spare(self, _one: ObjectVersion) -> bool:
        """It has no limits."""
        return True


def reader_of(workers: tuple[FakeWorker, ...], pool: ConnectionPool, store: Store | None = None) -> ChunkReader:
    """A reader that knows the workers' ring."""
    ring = RingHolder(token, tuple)
    ring.offer(workers[0].ring)
    return ChunkReader(ring, pool, store)


def owner_first(workers: tuple[FakeWorker, FakeWorker], number: int = 0) -> tuple[FakeWorker, FakeWorker]:
    """The workers in the rank order of one chunk."""
    owner = workers[0].ring.owner(ChunkKey(ONE.object_id, number))
    return workers if owner and owner.id == workers[0].name else (workers[1], workers[0])


def read(connection: WorkerConnection, offset: int, length: int) -> bytes:
    """One plain read of the object."""
    buffer = bytearray(length)
    connection.read_into(wire.ReadRequest(0, ONE, offset, length), memoryview(buffer))
    return bytes(buffer)


def test_a_connection_reads_and_learns(workers: tuple[FakeWorker, FakeWorker]) -> None:
    """Whole chunk, last partial block, and the epoch in the response."""
    member = workers[0].member
    connection = WorkerConnection(member.address, member.data_port, token)

    assert read(connection, 0, CHUNK_SIZE) == DATA[:CHUNK_SIZE]
    start = CHUNK_SIZE + 5 * BLOCK_SIZE
    assert read(connection, start, 77) == DATA[start:]
    assert connection.last_head is not None
    assert connection.last_head.epoch == 3
    connection.close()


def flip(connection: socket.socket, honest: bytes) -> bool:
    """Change the last payload bit on the way."""
    connection.sendall(honest[:-1] + bytes([honest[-1] ^ 1]))
    return True


def cut(connection: socket.socket, honest: bytes) -> bool:
    """End in the middle of the payload."""
    connection.sendall(honest[: len(honest) // 2])
    connection.shutdown(socket.SHUT_RDWR)
    return True


def silence(_connection: socket.socket, _honest: bytes) -> bool:
    """Never answer."""
    return True


def nonsense(connection: socket.socket, honest: bytes) -> bool:
    """Speak another protocol."""
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" + bytes(64) + honest[:0])
    return True


def another(connection: socket.socket, honest: bytes) -> bool:
    """Answer some other request, in itself without fault."""
    head = wire.decode_response(honest[: wire.RESPONSE.size])
    connection.sendall(wire.encode_response(replace(head, id=head.id + 1)) + honest[wire.RESPONSE.size :])
    return True


FAULTS: list[tuple[Callable[[socket.socket, bytes], bool], type[Exception]]] = [
    (flip, ChecksumMismatch), (cut, WorkerUnavailable), (silence, WorkerUnavailable), (nonsense, WorkerUnavailable),
    (another, WorkerUnavailable),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "kind"), FAULTS)
def test_a_fault_is_seen(
    workers: tuple[FakeWorker, FakeWorker], fault: Callable[[socket.socket, bytes], bool], kind: type[Exception]
) -> None:
    """Whatever the worker does wrong, no wrong byte comes back."""
    workers[0].faults.append(fault)
    member = workers[0].member
    connection = WorkerConnection(member.address, member.data_port, token, QUICK)

    with pytest.raises(kind):
        read(connection, 0, 2 * BLOCK_SIZE)
    connection.close()


@pytest.mark.parametrize(("fault", "kind"), FAULTS)
def test_the_next_owner_answers_instead(
    workers: tuple[FakeWorker, FakeWorker],
    fault: Callable[[socket.socket, bytes], bool],
    kind: type[Exception],
    pool: ConnectionPool,
) -> None:
    """A fault of the owner costs the reader nothing but time."""
    owner, other = owner_first(workers)
    owner.faults.append(fault)
    reader = reader_of(workers, pool)

    assert reader.read(ONE, 10, 100) == DATA[10:110], kind
    assert len(owner.requests) == 1
    assert len(other.requests) == 1


def test_a_refused_token_is_said(workers: tuple[FakeWorker, FakeWorker]) -> None:
    """The hello's error is the worker's own."""
    workers[0].refuse = (Unauthorized.code, "expired")
    member = workers[0].member

    with pytest.raises(Unauthorized, match="expired"):
        WorkerConnection(member.address, member.data_port, token)


def test_an_error_answer_keeps_the_connection(workers: tuple[FakeWorker, FakeWorker], pool: ConnectionPool) -> None:
    """NotCached is an answer, not a failure."""
    buffer = memoryview(bytearray(10))
    missing = ObjectVersion("uid", "m", "missing", "v", 10)

    for _ in range(2):
        with pytest.raises(NotCached):
            pool.read_into(workers[0].member, wire.ReadRequest(0, missing, 0, 10), buffer)

    assert len(workers[0].tokens) == 1
    assert not pool.avoided(workers[0].member)


def test_a_restarted_worker_is_connected_again(workers: tuple[FakeWorker, FakeWorker], pool: ConnectionPool) -> None:
    """A kept connection that was cut is replaced within the same read."""
    buffer = memoryview(bytearray(BLOCK_SIZE))
    request = wire.ReadRequest(0, ONE, 0, BLOCK_SIZE)
    pool.read_into(workers[0].member, request, buffer)
    workers[0].faults.append(cut)

    pool.read_into(workers[0].member, request, buffer)

    assert bytes(buffer) == DATA[:BLOCK_SIZE]
    assert not pool.avoided(workers[0].member)


def test_the_connection_to_a_worker_that_leaves_during_a_read_is_closed(
    workers: tuple[FakeWorker, FakeWorker], pool: ConnectionPool
) -> None:
    """The read ends well, and its connection is not kept for a worker that nobody knows any more."""
    served: list[socket.socket] = []

    def leave(connection: socket.socket, _honest: bytes) -> bool:
        served.append(connection)
        pool.retain((workers[1].member,))
        return False

    workers[0].faults.append(leave)
    buffer = memoryview(bytearray(BLOCK_SIZE))

    pool.read_into(workers[0].member, wire.ReadRequest(0, ONE, 0, BLOCK_SIZE), buffer)

    assert bytes(buffer) == DATA[:BLOCK_SIZE]
    eventually(lambda: served[0].fileno() < 0, timeout=10, what="the connection ends")


def test_ranges_across_chunks(workers: tuple[FakeWorker, FakeWorker], pool: ConnectionPool) -> None:
    """Pieces of several chunks are put together; the end of the object ends the read."""
    reader = reader_of(workers, pool)

    assert reader.read(ONE, CHUNK_SIZE - 5, 10) == DATA[CHUNK_SIZE - 5 : CHUNK_SIZE + 5]
    assert reader.read(ONE, len(DATA) - 3, 100) == DATA[-3:]
    assert reader.read(ONE, len(DATA), 1) == b""


def test_the_store_is_the_last_resort(workers: tuple[FakeWorker, FakeWorker], pool: ConnectionPool) -> None:
    """With all workers dead the store answers, and failing workers are not asked again at once."""
    store = Store(DATA)
    reader = reader_of(workers, pool, store)
    for worker in workers:
        worker.close()

    assert reader.read(ONE, 0, 5) == DATA[:5]
    assert reader.read(ONE, CHUNK_SIZE, 5) == DATA[CHUNK_SIZE : CHUNK_SIZE + 5]
    assert reader.counters.direct_bytes == BLOCK_SIZE * 2
    assert reader.counters.worker_failures <= 3


def test_nobody_has_it(workers: tuple[FakeWorker, FakeWorker], pool: ConnectionPool) -> None:
    """The store's own error is the one that is told."""
    for worker in workers:
        worker.objects.clear()

    with pytest.raises(SourceUnavailable, match="down"):
        reader_of(workers, pool, Store(None)).read(ONE, 0, 5)
    with pytest.raises(NotCached):
        reader_of(workers, pool).read(ONE, 0, 5)


def test_a_changed_object_is_final(workers: tuple[FakeWorker, FakeWorker], pool: ConnectionPool) -> None:
    """Nobody else is asked: the version is gone."""
    owner, other = owner_first(workers)

    def changed(connection: socket.socket, _honest: bytes) -> bool:
        connection.sendall(wire.encode_response(wire.ResponseHead(ObjectChanged.code, 0, 1, 3, 0, 3)) + b"new")
        return True

    owner.faults.append(changed)
    store = Store(DATA)

    with pytest.raises(ObjectChanged, match="new"):
        reader_of(workers, pool, store).read(ONE, 0, 5)
    assert not other.requests
    assert not store.reads


def test_equal_reads_at_once_are_one_transfer(workers: tuple[FakeWorker, FakeWorker], pool: ConnectionPool) -> None:
    """Four threads, one request."""
    owner, _ = owner_first(workers)
    asked, go_on = threading.Event(), threading.Event()

    def hold(_connection: socket.socket, _honest: bytes) -> bool:
        asked.set()
        go_on.wait(0.4)
        return False

    owner.faults.append(hold)
    reader = reader_of(workers, pool)
    results: list[bytes | memoryview] = []
    threads = [threading.Thread(target=lambda: results.append(reader.read(ONE, 0, 9))) for _ in range(4)]
    threads[0].start()
    assert asked.wait(5)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(5)

    assert results == [DATA[:9]] * 4
    assert len(owner.requests) <= 2


def test_cool_down_doubles_to_a_bound() -> None:
    """Nothing for a healthy worker, then 1, 2, 4 ... seconds."""
    assert [cool_down(count) for count in (0, 1, 2, 3, 60)] == [0, 1, 2, 4, 15]


@pytest.mark.parametrize(("layout", "first"), [(Layout.REPLICATED, "here"), (Layout.SHARDED, "owner")])
def test_where_every_worker_holds_all_the_own_node_is_asked_first(layout: Layout, first: str) -> None:
    """And where each chunk has one home, the home is asked, wherever it is."""
    members = tuple(Member(id=f"w-{n}", address="", data_port=1, control_port=2, node=f"node-{n}") for n in range(5))
    ring = Ring(1, layout, members)
    for number in range(20):
        chunk = ChunkKey("0123456789abcdef" * 4, number)

        order = preferred(ring, chunk, "node-3")

        assert order[0] == (members[3] if first == "here" else ring.owner(chunk))
        assert sorted(member.id for member in order) == [member.id for member in members]
