"""Open files and how their bytes get to the kernel.

A sequential reader is served from whole chunks that are fetched ahead of it; any other read fetches just the
blocks that it needs. A thread that took a request does the fetching itself while few do, so that a lone read
costs no hand-over; beyond that a pool works, and the device's threads stay free for names and attributes.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from forebay.index import Entry
from forebay.reader import ChunkReader
from forebay_node.fuse.buffers import Chunk, ChunkBuffers
from forebay_node.fuse.journal import Journal
from forebay_node.fuse.readahead import Readahead
from forebay_node.fuse.session import Reply, guard
from forebay_protocol.errors import ForebayError
from forebay_protocol.keys import ObjectVersion, Span, chunk_pieces

_KIND = "file"
_INLINE = 2
_FETCHERS = 6

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class OpenFile:
    """One open handle. It reads this version of the object and no other."""

    entry: Entry
    one: ObjectVersion
    readahead: Readahead
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Gathering:
    """One read that waits for its pieces of one or more chunks."""

    def __init__(self, buffers: ChunkBuffers, reply: Reply, pieces: list[tuple[Chunk, Span]]) -> None:
        self._buffers = buffers
        self._reply = reply
        self._pieces = pieces
        self._lock = threading.Lock()
        self._views: list[memoryview] = [memoryview(b"")] * len(pieces)
        self._missing = len(pieces)
        self._error: ForebayError | None = None

    def begin(self) -> None:
        for index, (chunk, span) in enumerate(self._pieces):
            self._buffers.when_ready(chunk, partial(self._arrived, index, span.offset - chunk.span.offset, span.length))

    def _arrived(
        self, index: int, start: int, length: int, view: memoryview | None, error: ForebayError | None
    ) -> None:
        with self._lock:
            self._missing -= 1
            self._error = self._error or error
            if view is not None:
                self._views[index] = view[start : start + length]
            if self._missing:
                return
        try:
            guard(self._reply, self._answer)
        finally:
            self._views.clear()
            for chunk, span in self._pieces:
                self._buffers.unpin(chunk, span.length)

    def _answer(self) -> None:
        if self._error is not None:
            raise self._error
        self._reply.data(self._views)


def fresh_numbers() -> Iterator[int]:
    """Numbers of handles that no server of this mount has given out before: it lives no longer than this clock."""
    return itertools.count(time.monotonic_ns())


class Files:
    """All open files of a mount. Thread-safe."""

    def __init__(self, reader: ChunkReader, budget: int, journal: Journal) -> None:
        """``budget`` bounds the memory of chunks fetched ahead, in bytes; the journal may know open files."""
        self._reader = reader
        self.buffers = ChunkBuffers(reader.read_into, budget)
        self._lock = threading.Lock()
        self._numbers = fresh_numbers()
        self._journal = journal
        self._open: dict[int, OpenFile] = {}
        for number, (dataset, *fields) in journal.items(_KIND):
            entry = Entry(*fields)
            one = ObjectVersion(dataset, entry.mount, entry.key, entry.version, entry.size)
            self._open[int(number)] = OpenFile(entry, one, Readahead(one.size))
        self._inline = threading.Semaphore(_INLINE)
        self._demand = ThreadPoolExecutor(_FETCHERS, "demand")
        self._ahead = ThreadPoolExecutor(_FETCHERS, "ahead")

    def open(self, entry: Entry, one: ObjectVersion) -> int:
        """A new handle."""
        opened = OpenFile(entry, one, Readahead(one.size))
        with self._lock:
            number = next(self._numbers)
            self._open[number] = opened
        self._journal.put(_KIND, number, one.dataset, *entry)
        return number

    def release(self, number: int) -> None:
        """The handle's last descriptor is closed."""
        with self._lock:
            closed = self._open.pop(number, None)
            last = closed is not None and all(other.one != closed.one for other in self._open.values())
            idle = not self._open
        self._journal.drop(_KIND, number)
        if closed is not None and last:
            self.buffers.forget(closed.one)
        if idle:
            self.buffers.trim()

    def of_node(self, node: int) -> Entry | None:
        """The entry of an open file whose version the index no longer shows."""
        with self._lock:
            return next((opened.entry for opened in self._open.values() if opened.entry.inode == node), None)

    def read(self, number: int, offset: int, length: int, reply: Reply) -> bool:
        """Answer a read, now or later; false when there is no such handle."""
        opened = self._open.get(number)
        if opened is None:
            return False
        wanted = max(0, min(length, opened.one.size - offset))
        if not wanted:
            reply.data()
            return True
        with opened.lock:
            plan = opened.readahead.plan(offset, wanted, self.buffers.window())
        pieces = self._pin(opened.one, offset, wanted) if plan.whole else None
        for chunk_number in plan.ahead:
            chunk = self.buffers.expect(opened.one, chunk_number)
            if chunk is not None:
                self._ahead.submit(self._fetch, chunk)
        if pieces is None:
            self._soon(lambda: guard(reply, lambda: reply.data((self._reader.read(opened.one, offset, wanted),))))
        else:
            self._from_chunks(pieces, reply)
        return True

    def _pin(self, one: ObjectVersion, offset: int, length: int) -> list[tuple[Chunk, Span]] | None:
        """The chunks under a range, pinned; None, and nothing pinned, when there is no room for all."""
        pieces: list[tuple[Chunk, Span]] = []
        for number, span in chunk_pieces(offset, length):
            chunk = self.buffers.pin(one, number)
            if chunk is None:
                for pinned, _ in pieces:
                    self.buffers.unpin(pinned, 0)
                return None
            pieces.append((chunk, span))
        return pieces

    def _from_chunks(self, pieces: list[tuple[Chunk, Span]], reply: Reply) -> None:
        _Gathering(self.buffers, reply, pieces).begin()
        for chunk, _ in pieces:
            if chunk.is_queued:
                self._soon(partial(self._fetch, chunk))

    def _fetch(self, chunk: Chunk) -> None:
        try:
            self.buffers.fetch(chunk)
        except Exception:  # noqa: BLE001 - a pool would swallow it; whoever waits for the chunk has got EIO
            _log.exception("fetching a chunk failed for a reason that is a defect")

    def later(self, work: Callable[[], None]) -> None:
        """Do something that may take long and answers by itself."""
        self._demand.submit(work)

    def _soon(self, work: Callable[[], None]) -> None:
        """Do it in this thread, unless as many threads of the device are busy like that as may be."""
        if self._inline.acquire(blocking=False):
            try:
                work()
            finally:
                self._inline.release()
        else:
            self._demand.submit(work)

    def close(self) -> None:
        """Stop the fetchers."""
        self._demand.shutdown(wait=False, cancel_futures=True)
        self._ahead.shutdown(wait=False, cancel_futures=True)
