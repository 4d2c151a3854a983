"""Workers that are alive and slow: readers go elsewhere in time, in bounds, and come back."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from typing_extensions import override

from forebay.connection import Timeouts
from forebay.health import STRIKES, Health, cool_down
from forebay.pace import LEAST_ANSWER, LEAST_FETCH, Pace
from forebay.pool import ConnectionPool
from forebay.race import Allowance, Attempt, Place, Race
from forebay.reader import ChunkReader
from forebay.ring import RingHolder
from forebay_protocol import wire
from forebay_protocol.errors import ForebayError, ObjectChanged, Overloaded, SourceUnavailable, WorkerUnavailable
from forebay_protocol.keys import BLOCK_SIZE, ChunkKey, ObjectVersion, Span
from forebay_protocol.ring import Ring
from forebay_protocol.wire import Flag
from testkit.fake_worker import FakeWorker, version_of
from testkit.waiting import eventually

DATA = bytes(range(256)) * 4096
ONE = version_of("a", DATA)
LENGTH = 2 * BLOCK_SIZE
HANG = 20.0


def token() -> str:
    """What every client here shows."""
    return "t"


def forever(connection: socket.socket, _honest: bytes) -> bool:
    """Never answer, and never end."""
    connection.recv(1)
    return True


def drip(connection: socket.socket, honest: bytes) -> bool:
    """Answer so slowly that it would take minutes."""
    for position in range(0, len(honest), 64):
        connection.sendall(honest[position : position + 64])
        time.sleep(0.05)
    return True


def fetch_first(go_on: threading.Event) -> Callable[[socket.socket, bytes], bool]:
    """Announce that the chunk is being fetched; answer when told to."""

    def answer(connection: socket.socket, _honest: bytes) -> bool:
        connection.sendall(wire.encode_response(wire.ResponseHead(wire.STATUS_FETCHING, 0, 1, 3, 0, 0)))
        go_on.wait(HANG)
        return False

    return answer


class Store:
    """The last resort of these tests."""

    def __init__(self) -> None:
        self.reads = 0

    def read_into(self, _one: ObjectVersion, span: Span, buffer: memoryview) -> None:
        """Fill from memory."""
        self.reads += 1
        buffer[:] = DATA[span.offset : span.end]

    def spare(self, _one: ObjectVersion) -> bool:
        """It has no limits."""
        return True


@pytest.fixture
def workers() -> Iterator[tuple[FakeWorker, FakeWorker]]:
    """The owner of the object's first chunk, and another worker that has it too."""
    with FakeWorker("w-0") as first, FakeWorker("w-1") as second:
        ring = Ring(epoch=3, members=(first.member, second.member))
        for worker in (first, second):
            worker.objects["a"], worker.ring = DATA, ring
        owner = ring.owner(ChunkKey(ONE.object_id, 0))
        assert owner is not None
        yield (first, second) if owner.id == first.name else (second, first)


@pytest.fixture
def store() -> Store:
    """The last resort."""
    return Store()


@pytest.fixture
def reader(workers: tuple[FakeWorker, FakeWorker], store: Store) -> Iterator[ChunkReader]:
    """A reader of both workers that would wait very long for one of them."""
    pool = ConnectionPool(token, timeouts=Timeouts(connect=HANG, answer=100 * HANG))
    ring = RingHolder(token, tuple)
    ring.offer(workers[0].ring)
    yield ChunkReader(ring, pool, store)
    pool.close()


def read(reader: ChunkReader) -> None:
    """One read, with the right bytes."""
    assert reader.read(ONE, 0, LENGTH) == DATA[:LENGTH]


@pytest.mark.timeout(HANG)
@pytest.mark.parametrize("fault", [forever, drip])
def test_another_worker_is_asked_beside_a_slow_one(
    reader: ChunkReader, workers: tuple[FakeWorker, FakeWorker], fault: Callable[[socket.socket, bytes], bool]
) -> None:
    """Silence from the start, and an answer that drips: the other worker wins, and is told not to ask the owner."""
    owner, other = workers
    owner.faults.append(fault)

    read(reader)

    assert reader.counters.hedges == 1
    assert reader.counters.hedged_bytes == LENGTH
    assert [request.flags for request in other.requests] == [Flag.ANNOUNCE | Flag.INSTEAD]


@pytest.mark.timeout(HANG)
def test_when_all_workers_are_slow_the_store_answers(
    reader: ChunkReader, workers: tuple[FakeWorker, FakeWorker], store: Store
) -> None:
    """More reads than may be hedged: the workers are found slow, then only the store is asked."""
    for worker in workers:
        worker.faults += [forever] * 100

    for _ in range(20):
        read(reader)

    assert store.reads == 20
    assert len(workers[0].requests) <= 20
    assert reader.counters.hedges <= 10


@pytest.mark.timeout(HANG)
def test_a_slow_worker_is_left_alone_then_probed_then_asked_again(
    reader: ChunkReader, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    """After some lost races readers do not wait for it any more; a probe in the background brings it back."""
    owner, other = workers
    owner.faults += [forever] * STRIKES
    for _ in range(STRIKES):
        read(reader)
    assert reader.pool.avoided(owner.member)
    asked = len(owner.requests)
    read(reader)
    assert len(owner.requests) == asked

    def asked_again() -> bool:
        read(reader)
        return not reader.pool.avoided(owner.member)

    eventually(asked_again, timeout=HANG, what="the owner is asked again", until=bool)

    assert owner.requests[asked].flags & Flag.CACHED_ONLY, "the probe fetches nothing"
    before = len(other.requests)
    read(reader)
    assert len(other.requests) == before


@pytest.mark.timeout(HANG)
def test_a_worker_that_waits_for_the_store_is_not_slow(
    reader: ChunkReader, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    """It announces that; asking elsewhere would only fetch the bytes twice."""
    owner, other = workers
    go_on = threading.Event()
    owner.faults.append(fetch_first(go_on))
    threading.Timer(2 * Pace().allowed(LENGTH), go_on.set).start()

    read(reader)

    assert reader.counters.hedges == 0
    assert not other.requests


@pytest.mark.timeout(HANG)
def test_a_worker_that_refuses_connections_is_left_alone_as_long_as_it_says(
    reader: ChunkReader, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    """One is asked in vain, the next reads do not try; when the time is over it is asked again, without a probe."""
    owner, other = workers
    owner.refuse, owner.retry_after = (Overloaded.code, "as many connections as it may"), 0.5
    for _ in range(3):
        read(reader)
    assert len(owner.tokens) == 1
    assert len(other.requests) == 3

    owner.refuse, owner.retry_after = None, 0.0
    eventually(lambda: not reader.pool.avoided(owner.member), timeout=HANG, what="the pause is over", interval=0.05)
    read(reader)
    assert len(other.requests) == 3


class Stuck:
    """A place that gives nothing until its attempt is over."""

    def avoided(self) -> bool:
        """It is not known to be slow."""
        return False

    def spare(self) -> bool:
        """It may be asked."""
        return True

    def outlasts(self, _deadline: float) -> bool:
        """It can be ended."""
        return False

    def read_into(self, _buffer: memoryview, attempt: Attempt) -> None:
        """Behave like a connection: call late, until the read is ended."""
        ended = threading.Event()
        attempt.begin(ended.set)
        while not ended.wait(max(0.0, attempt.due - time.monotonic())):
            attempt.late(0)
        attempt.end()
        raise WorkerUnavailable("ended")


class Prompt(Stuck):
    """A place that answers at once, with an error if it has one."""

    def __init__(self, error: ForebayError | None = None) -> None:
        self.error = error

    @override
    def read_into(self, buffer: memoryview, attempt: Attempt) -> None:
        """Fill with ones."""
        if self.error is not None:
            raise self.error
        buffer[:] = b"1" * len(buffer)


class Endless(Stuck):
    """A store: nothing ends a read of it but the store itself."""

    def __init__(self, error: ForebayError | None = None) -> None:
        self.answers = threading.Event()
        self.error = error

    @override
    def outlasts(self, _deadline: float) -> bool:
        """Always."""
        return True

    @override
    def read_into(self, buffer: memoryview, attempt: Attempt) -> None:
        """Wait for the store."""
        assert self.answers.wait(HANG)
        if self.error is not None:
            raise self.error
        buffer[:] = b"2" * len(buffer)


def race(*places: Place, allowance: Allowance | None = None, seconds: float = HANG) -> bytes:
    """Run one race over 8 bytes."""
    buffer = bytearray(8)
    deadline = time.monotonic() + seconds
    Race(places, len(buffer), Pace(), allowance or Allowance(), deadline).run(memoryview(buffer))
    return bytes(buffer)


@pytest.mark.timeout(HANG)
def test_races() -> None:
    """The first whole answer wins; an error moves on at once; the last error is told; a final one ends all."""
    assert race(Stuck(), Prompt()) == b"1" * 8
    assert race(Stuck(), Stuck(), Prompt()) == b"1" * 8
    assert race(Prompt(WorkerUnavailable("down")), Prompt()) == b"1" * 8
    with pytest.raises(SourceUnavailable, match="store"):
        race(Prompt(WorkerUnavailable("down")), Prompt(SourceUnavailable("the store")))
    with pytest.raises(ObjectChanged):
        race(Stuck(), Prompt(ObjectChanged("new")))


@pytest.mark.timeout(HANG)
def test_a_store_that_is_slow_does_not_hold_a_read_for_longer_than_its_time() -> None:
    """The read ends when its time is over; a store that answers before that is waited for, and its errors are told."""
    store = Endless()
    with pytest.raises(WorkerUnavailable):
        race(Prompt(WorkerUnavailable("down")), store, seconds=0.2)
    store.answers.set()

    assert race(Prompt(WorkerUnavailable("down")), store) == b"2" * 8
    store.error = SourceUnavailable("the store")
    with pytest.raises(SourceUnavailable):
        race(Prompt(WorkerUnavailable("down")), store)


@pytest.mark.timeout(HANG)
def test_without_an_allowance_a_late_place_gets_longer_but_not_for_ever() -> None:
    """Hedges are a small share of all reads; what takes several times too long has failed and is left."""
    empty = Allowance()
    while empty.spend():
        pass
    begin = time.monotonic()

    assert race(Stuck(), Prompt(), allowance=empty) == b"1" * 8

    assert time.monotonic() - begin > 2 * Pace().allowed(8)


def test_hedges_are_a_small_share_of_reads() -> None:
    """10 at once, then 2 for each 100 reads."""
    allowance = Allowance()
    spent = sum(allowance.spend() for _ in range(1000))
    for _ in range(1000):
        allowance.earn()
        spent += allowance.spend()
    assert 25 <= spent <= 30


def test_the_pace_follows_what_comes() -> None:
    """A guess, then three times what nearly all took; each length has its own; fetching has a floor."""
    pace = Pace()
    assert pace.expected(4096) < pace.expected(4 << 20)
    for _ in range(64):
        pace.note(4096, 0.01)
        pace.note_fetch(2.0)
    assert pace.allowed(4096) == pytest.approx(0.03 + LEAST_ANSWER)
    assert pace.expected(4 << 20) > 0.01
    assert Pace().allowed_fetch() == LEAST_FETCH
    assert pace.allowed_fetch() == 6.0


def test_health() -> None:
    """One lost race is a hiccup, several in a row are slowness; only bytes in time make a worker well again."""
    health = Health()
    health.lost(0.0)
    health.good()
    for _ in range(STRIKES - 1):
        health.lost(0.0)
    assert not health.avoided
    health.lost(0.0)
    assert health.avoided
    assert not health.wants_probe(0.9)
    assert health.wants_probe(1.0)
    health.passed()
    assert not health.avoided
    health.failed(1.0)
    assert health.probe_at == 1.0 + cool_down(2)
    health.good()
    health.overloaded(5.0, 1.0)
    assert health.left_alone(5.9)
    assert not health.left_alone(6.0)
    health.busy_until = 0.0
    assert health == Health(probe_at=health.probe_at)
