"""A cold chunk is served as it arrives: real workers before a real store whose answers stop where the test says."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from forebay_protocol.errors import ObjectChanged
from forebay_protocol.keys import BLOCK_SIZE, CHUNK_SIZE, ChunkKey, ObjectVersion, Span
from forebay_protocol.wire import ReadRequest
from testkit.buckets import Bucket
from testkit.sample_cluster import OBJECTS, Make, versions
from testkit.store_proxy import Ending, StoreAnswer, StoreProxy
from testkit.waiting import eventually
from testkit.worker_processes import WorkerCluster, WorkerProcess

KEY = "model/big.safetensors"
CUT = CHUNK_SIZE // 2 + 1000


class _Gate:
    """The first answer with a whole chunk stops at ``CUT`` until the gate is opened; others pass."""

    def __init__(self, ending: Ending = Ending.GATE) -> None:
        self.opened = threading.Event()
        self._ending = ending
        self._lock = threading.Lock()
        self._used = False

    def __call__(self, _path: str, answer: StoreAnswer) -> None:
        with self._lock:
            if self._used or len(answer.body) != CHUNK_SIZE:
                return
            self._used = True
        answer.cut, answer.ending, answer.gate = CUT, self._ending, self.opened


@pytest.fixture
def gate(proxy: StoreProxy) -> Iterator[_Gate]:
    """Before the store; open when the test is over."""
    made = _Gate()
    proxy.break_answers(made)
    yield made
    made.opened.set()


def _read(worker: WorkerProcess, one: ObjectVersion, span: Span) -> bytes:
    buffer = bytearray(span.length)
    with closing(worker.connect()) as connection:
        connection.read_into(ReadRequest(0, one, *span), memoryview(buffer))
    return bytes(buffer)


def _big(cluster: WorkerCluster) -> ObjectVersion:
    return versions(cluster.wait_for_index())[KEY]


def test_a_reader_has_its_range_before_the_chunk_is_whole(make: Make, proxy: StoreProxy, gate: _Gate) -> None:
    """While the store keeps half of the chunk to itself, the other half is read; each byte is asked for once."""
    cluster = make().start(1)
    one, worker = _big(cluster), cluster.workers[0]

    for span in (Span(0, BLOCK_SIZE), Span(CHUNK_SIZE // 2 - BLOCK_SIZE, BLOCK_SIZE), Span(0, CHUNK_SIZE // 2)):
        assert _read(worker, one, span) == OBJECTS[KEY][span.offset : span.end]

    with ThreadPoolExecutor(2) as pool:
        last = pool.submit(_read, worker, one, Span(CHUNK_SIZE // 2, BLOCK_SIZE))
        whole = pool.submit(_read, worker, one, Span(0, CHUNK_SIZE))
        assert not gate.opened.is_set()
        assert not last.done()
        assert not whole.done()
        gate.opened.set()
        assert last.result(30) == OBJECTS[KEY][CHUNK_SIZE // 2 :][:BLOCK_SIZE]
        assert whole.result(30) == OBJECTS[KEY][:CHUNK_SIZE]
    assert sum(proxy.object_bytes().values()) == CHUNK_SIZE
    eventually(lambda: worker.status().cached_bytes == CHUNK_SIZE, timeout=10, what="the chunk is kept")


def test_another_workers_reader_has_its_range_too(make: Make, proxy: StoreProxy, gate: _Gate) -> None:
    """A chunk that its owner still fetches passes through another worker as it arrives there."""
    cluster = make().start(2)
    one = _big(cluster)
    ring = cluster.publish()
    owner = ring.ranked(ChunkKey(one.object_id, 0))[0].id
    other = next(worker for worker in cluster.workers if worker.id != owner)

    assert _read(other, one, Span(0, BLOCK_SIZE)) == OBJECTS[KEY][:BLOCK_SIZE]

    assert not gate.opened.is_set()
    gate.opened.set()
    assert _read(other, one, Span(0, CHUNK_SIZE)) == OBJECTS[KEY][:CHUNK_SIZE]
    assert sum(proxy.object_bytes().values()) == CHUNK_SIZE


def test_what_arrived_of_a_broken_answer_is_not_asked_for_again(make: Make, proxy: StoreProxy) -> None:
    """Only the rest is, so that a store that breaks off is not asked for more bytes than the object has."""
    cluster = make().start(1)
    one, worker = _big(cluster), cluster.workers[0]
    proxy.break_answers(_Gate(Ending.CLOSE))

    assert _read(worker, one, Span(0, CHUNK_SIZE)) == OBJECTS[KEY][:CHUNK_SIZE]

    assert [seen.range for seen in proxy.seen if seen.range] == [
        f"bytes=0-{CHUNK_SIZE - 1}",
        f"bytes={CUT}-{CHUNK_SIZE - 1}",
    ]
    assert sum(proxy.object_bytes().values()) == CHUNK_SIZE


def test_an_object_that_changes_in_the_middle_of_a_chunk_is_not_mixed(
    make: Make, bucket: Bucket, proxy: StoreProxy
) -> None:
    """Its first half was the old version's and stays that for who has it; nobody gets the other half."""
    cluster = make().start(1)
    one, worker = _big(cluster), cluster.workers[0]
    begun = _Gate(Ending.CLOSE)

    def overwrite(path: str, answer: StoreAnswer) -> None:
        begun(path, answer)
        if answer.cut is not None:
            bucket.put({KEY: bytes(len(OBJECTS[KEY]))})

    proxy.break_answers(overwrite)
    with closing(worker.connect()) as connection:
        connection.read_into(ReadRequest(0, one, 0, BLOCK_SIZE), memoryview(first := bytearray(BLOCK_SIZE)))

    assert bytes(first) == OBJECTS[KEY][:BLOCK_SIZE]
    for span in (Span(0, CHUNK_SIZE), Span(CHUNK_SIZE - BLOCK_SIZE, BLOCK_SIZE)):
        with pytest.raises(ObjectChanged):
            _read(worker, one, span)
    assert worker.status().cached_bytes == 0


def test_who_fetches_a_chunk_goes_on_reading_meanwhile(make: Make, gate: _Gate) -> None:
    """On one and the same connection: the thread that fetches the rest does not hold up its reader's next range."""
    cluster = make().start(1)
    one, worker = _big(cluster), cluster.workers[0]

    with closing(worker.connect()) as connection:
        for number in (0, 1, 7, 3):
            block = bytearray(BLOCK_SIZE)
            connection.read_into(ReadRequest(0, one, number * BLOCK_SIZE, BLOCK_SIZE), memoryview(block))
            assert bytes(block) == OBJECTS[KEY][number * BLOCK_SIZE :][:BLOCK_SIZE]

    assert not gate.opened.is_set()
