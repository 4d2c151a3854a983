"""Chunks in memory between a worker and the kernel: fetched once, handed out while they last.

The kernel's page cache is the cache; these buffers only bridge the time from a chunk's arrival until the
kernel has asked for all of it. Their sum stays under a budget.
"""

import contextlib
import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from forebay_protocol.errors import ForebayError, WorkerUnavailable
from forebay_protocol.keys import CHUNK_SIZE, ChunkKey, ObjectVersion, Span

Fill = Callable[[ObjectVersion, Span, memoryview], None]
"""Fetches a span of an object into a buffer, or raises a ForebayError."""

Waiter = Callable[[memoryview | None, ForebayError | None], None]
"""Called once with a chunk's bytes or with the error that there is instead."""

_SPARE_BUFFERS = 6


class State(Enum):
    """A chunk's way: asked for, being fetched by one thread, there, or not to be had."""

    QUEUED = 1
    FETCHING = 2
    READY = 3
    FAILED = 4


@dataclass(slots=True, eq=False)
class Chunk:
    """One chunk in memory. ``pins`` counts who uses the buffer now; ``served`` the bytes handed out."""

    one: ObjectVersion
    number: int
    span: Span
    state: State = State.QUEUED
    buffer: mmap.mmap | None = None
    pins: int = 0
    served: int = 0
    error: ForebayError | None = None
    waiters: list[Waiter] = field(default_factory=list)
    forgotten: bool = False

    @property
    def is_queued(self) -> bool:
        """Whether nobody has begun to fetch it; just a hint, ``fetch`` decides."""
        return self.state is State.QUEUED


def _new_buffer(length: int) -> mmap.mmap:
    # Anonymous maps go back to the system when they are dropped, and do not fragment the heap.
    buffer = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if length == CHUNK_SIZE:
        # A thousand page faults cost as much as receiving the chunk; two cost nothing.
        with contextlib.suppress(OSError):
            buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer


class ChunkBuffers:
    """All chunks that one mount holds in memory. Thread-safe; waiters are called without the lock."""

    def __init__(self, fill: Fill, budget: int) -> None:
        """``budget`` bounds the sum of all buffers, in bytes."""
        self.budget = budget
        self._fill = fill
        self._lock = threading.Lock()
        self._chunks: OrderedDict[ChunkKey, Chunk] = OrderedDict()
        self._spare: list[mmap.mmap] = []
        self._used = 0

    def window(self) -> int:
        """How many chunks one sequential reader may have fetched ahead: half the room, shared by the files in use."""
        with self._lock:
            files = len({key.object_id for key in self._chunks}) or 1
        return max(1, min(8, self.budget // CHUNK_SIZE // 2 // files))

    def pin(self, one: ObjectVersion, number: int) -> Chunk | None:
        """The chunk, to be unpinned later; None when there is no room to fetch it."""
        with self._lock:
            chunk = self._find(one, number, may_drop_unread=True)
            if chunk is not None:
                chunk.pins += 1
            return chunk

    def expect(self, one: ObjectVersion, number: int) -> Chunk | None:
        """A chunk that will be wanted, if it is new and there is room; to be given to ``fetch``."""
        with self._lock:
            if ChunkKey(one.object_id, number) in self._chunks:
                return None
            return self._find(one, number, may_drop_unread=False)

    def _find(self, one: ObjectVersion, number: int, *, may_drop_unread: bool) -> Chunk | None:
        key = ChunkKey(one.object_id, number)
        chunk = self._chunks.get(key)
        if chunk is not None:
            self._chunks.move_to_end(key)
            return chunk
        span = one.chunk_span(number)
        if not self._make_room(span.length, may_drop_unread=may_drop_unread):
            return None
        self._used += span.length
        chunk = self._chunks[key] = Chunk(one, number, span)
        return chunk

    def _make_room(self, length: int, *, may_drop_unread: bool) -> bool:
        if self._used + length <= self.budget:
            return True
        for key, chunk in list(self._chunks.items()):
            if chunk.state is State.READY and not chunk.pins and (chunk.served or may_drop_unread):
                self._drop(key, chunk)
                if self._used + length <= self.budget:
                    return True
        return False

    def _drop(self, key: ChunkKey, chunk: Chunk) -> None:
        if self._chunks.get(key) is chunk:
            del self._chunks[key]
        self._used -= chunk.span.length
        buffer, chunk.buffer = chunk.buffer, None
        if buffer is not None and len(buffer) == CHUNK_SIZE and len(self._spare) < _SPARE_BUFFERS:
            self._spare.append(buffer)

    def fetch(self, chunk: Chunk) -> None:
        """Fetch the chunk, unless another thread does or did; then tell those who wait."""
        with self._lock:
            if chunk.state is not State.QUEUED:
                return
            chunk.state = State.FETCHING
            spare = self._spare.pop() if self._spare and chunk.span.length == CHUNK_SIZE else None
        buffer = spare if spare is not None else _new_buffer(chunk.span.length)
        error: ForebayError | None = WorkerUnavailable("the read was given up")
        try:
            with memoryview(buffer) as view:
                self._fill(chunk.one, chunk.span, view)
            error = None
        except ForebayError as raised:
            error = raised
        finally:
            self._settle(chunk, buffer, error)

    def _settle(self, chunk: Chunk, buffer: mmap.mmap, error: ForebayError | None) -> None:
        key = ChunkKey(chunk.one.object_id, chunk.number)
        with self._lock:
            chunk.buffer, chunk.error = buffer, error
            chunk.state = State.READY if error is None else State.FAILED
            waiters, chunk.waiters = chunk.waiters, []
            # Until they are done with it, those who wait hold the chunk by their own pins.
            if error is not None and self._chunks.get(key) is chunk:
                del self._chunks[key]
            self._drop_if_done(key, chunk)
        for waiter in waiters:
            self._tell(chunk, waiter)

    def when_ready(self, chunk: Chunk, waiter: Waiter) -> None:
        """Call the waiter with the pinned chunk's bytes: now, or from the thread that fetches it."""
        with self._lock:
            if chunk.state in {State.QUEUED, State.FETCHING}:
                chunk.waiters.append(waiter)
                return
        self._tell(chunk, waiter)

    @staticmethod
    def _tell(chunk: Chunk, waiter: Waiter) -> None:
        if chunk.error is not None or chunk.buffer is None:
            waiter(None, chunk.error)
        else:
            waiter(memoryview(chunk.buffer), None)

    def unpin(self, chunk: Chunk, served: int) -> None:
        """Done with the chunk, of which so many bytes were handed out."""
        with self._lock:
            chunk.pins -= 1
            chunk.served += served
            self._drop_if_done(ChunkKey(chunk.one.object_id, chunk.number), chunk)

    def _drop_if_done(self, key: ChunkKey, chunk: Chunk) -> None:
        settled = chunk.state in {State.READY, State.FAILED} and chunk.buffer is not None
        finished = chunk.forgotten or chunk.served >= chunk.span.length or chunk.state is State.FAILED
        if settled and finished and not chunk.pins:
            self._drop(key, chunk)

    def forget(self, one: ObjectVersion) -> None:
        """Nobody has the object open any more: drop its chunks, those under way when they arrive."""
        with self._lock:
            for key, chunk in [(key, chunk) for key, chunk in self._chunks.items() if key.object_id == one.object_id]:
                chunk.forgotten = True
                if chunk.state is State.QUEUED and not chunk.pins:
                    chunk.state = State.FAILED
                    self._drop(key, chunk)
                else:
                    self._drop_if_done(key, chunk)

    def trim(self) -> None:
        """No file is open: give the spare buffers back to the system."""
        with self._lock:
            self._spare.clear()

    @property
    def used(self) -> int:
        """The bytes that all buffers have now."""
        with self._lock:
            return self._used
