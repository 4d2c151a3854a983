"""Chunks in memory: fetched once, within the budget, gone when they have been read."""

import threading

from forebay_node.fuse.buffers import Chunk, ChunkBuffers
from forebay_protocol.errors import ForebayError, SourceUnavailable
from forebay_protocol.keys import CHUNK_SIZE, ObjectVersion, Span

ONE = ObjectVersion("uid", "m", "k", "v", 10 * CHUNK_SIZE)
OTHER = ObjectVersion("uid", "m", "other", "v", 10 * CHUNK_SIZE)


class Origin:
    """Where chunks come from; counts."""

    def __init__(self) -> None:
        self.fetched: list[int] = []
        self.broken = False

    def fill(self, _one: ObjectVersion, span: Span, buffer: memoryview) -> None:
        """The chunk's number in every byte."""
        self.fetched.append(span.offset // CHUNK_SIZE)
        if self.broken:
            raise SourceUnavailable("down")
        buffer[:] = bytes([span.offset // CHUNK_SIZE]) * span.length


def got(buffers: ChunkBuffers, chunk: Chunk) -> list[bytes | str]:
    """What a waiter is told."""
    told: list[bytes | str] = []

    def waiter(view: memoryview | None, error: ForebayError | None) -> None:
        told.append(bytes(view[:1]) if view is not None else str(error))

    buffers.when_ready(chunk, waiter)
    return told


def test_a_chunk_is_fetched_once_and_dropped_when_read() -> None:
    """Two readers of one chunk; it goes when all of it was handed out and nobody uses it."""
    origin = Origin()
    buffers = ChunkBuffers(origin.fill, 4 * CHUNK_SIZE)
    first, second = buffers.pin(ONE, 3), buffers.pin(ONE, 3)
    assert first is not None
    assert first is second
    early = got(buffers, first)

    buffers.fetch(first)
    buffers.fetch(first)

    assert early == [b"\x03"] == got(buffers, first)
    assert origin.fetched == [3]
    buffers.unpin(first, CHUNK_SIZE)
    assert buffers.used == CHUNK_SIZE
    buffers.unpin(first, 0)
    assert buffers.used == 0


def test_the_budget_holds() -> None:
    """Pinned chunks are never dropped for others; unread ones only for a reader, not for a guess."""
    origin = Origin()
    buffers = ChunkBuffers(origin.fill, 2 * CHUNK_SIZE)
    pinned, guessed = buffers.pin(ONE, 0), buffers.expect(ONE, 1)
    assert pinned is not None
    assert guessed is not None
    buffers.fetch(pinned)
    buffers.fetch(guessed)

    assert buffers.expect(ONE, 2) is None
    wanted = buffers.pin(ONE, 2)
    assert wanted is not None
    assert buffers.pin(ONE, 4) is None
    assert buffers.used == 2 * CHUNK_SIZE


def test_a_failure_is_told_and_not_kept() -> None:
    """The next reader asks again."""
    origin = Origin()
    origin.broken = True
    buffers = ChunkBuffers(origin.fill, 2 * CHUNK_SIZE)
    chunk = buffers.pin(ONE, 0)
    assert chunk is not None

    buffers.fetch(chunk)

    assert got(buffers, chunk) == ["down"]
    again = buffers.pin(ONE, 0)
    assert again is not None
    assert again is not chunk
    buffers.unpin(chunk, 0)
    buffers.unpin(again, 0)


def test_closing_a_file_forgets_its_chunks() -> None:
    """Those that are there, those still queued, and the one under way as soon as it arrives."""
    entered, go_on = threading.Event(), threading.Event()
    origin = Origin()

    def slow(one: ObjectVersion, span: Span, buffer: memoryview) -> None:
        entered.set()
        assert go_on.wait(5)
        origin.fill(one, span, buffer)

    buffers = ChunkBuffers(slow, 8 * CHUNK_SIZE)
    under_way, queued, kept = buffers.expect(ONE, 0), buffers.expect(ONE, 1), buffers.expect(OTHER, 0)
    assert under_way is not None
    assert queued is not None
    assert kept is not None
    thread = threading.Thread(target=buffers.fetch, args=(under_way,))
    thread.start()
    assert entered.wait(5)

    buffers.forget(ONE)
    assert buffers.used == 2 * CHUNK_SIZE
    go_on.set()
    thread.join()
    buffers.fetch(queued)

    assert buffers.used == CHUNK_SIZE
    assert origin.fetched == [0]


def test_a_buffer_stays_while_somebody_reads_it() -> None:
    """Also when the file is closed meanwhile; its room is free after the last reader."""
    buffers = ChunkBuffers(Origin().fill, 8 * CHUNK_SIZE)
    chunk = buffers.pin(ONE, 1)
    assert chunk is not None
    buffers.fetch(chunk)

    buffers.forget(ONE)

    assert chunk.buffer is not None
    assert chunk.buffer[:8] == b"\1" * 8
    assert buffers.used == CHUNK_SIZE
    buffers.unpin(chunk, 0)
    assert buffers.used == 0


def test_the_window_is_shared_by_the_files_in_use() -> None:
    """One file may fetch half the budget ahead; more files less each."""
    buffers = ChunkBuffers(Origin().fill, 16 * CHUNK_SIZE)

    assert buffers.window() == 8
    buffers.expect(ONE, 0)
    buffers.expect(OTHER, 0)
    assert buffers.window() == 4
