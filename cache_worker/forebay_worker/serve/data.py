"""The data protocol's server: large chunks go out by sendfile from a thread each, small ones from one thread for all.

A stream that is quiet, or asks for little at a time, is watched by the reactor, which answers small hits itself: for
those, handing Python's one lock from thread to thread would cost more than the answer. Whatever may wait (a large
range, a chunk that must be fetched or verified, a slow reader) is served by a thread, which keeps the stream as long
as one such request follows the other. Requests on one stream are answered in their order.
"""

import contextlib
import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import structlog

from forebay_protocol import wire
from forebay_protocol.errors import ForebayError, InvalidRequest, Overloaded, Unauthorized, WorkerUnavailable
from forebay_protocol.keys import BLOCK_SIZE, CHUNK_SIZE, ObjectVersion, block_aligned, block_count
from forebay_protocol.wire import Flag, ReadRequest, ResponseHead
from forebay_worker.access import Admission
from forebay_worker.arrival import Part
from forebay_worker.metrics import Metrics
from forebay_worker.serve.reactor import Reactor
from forebay_worker.serve.stream import LINGER_SECONDS, Asked, Closed, Stream
from forebay_worker.shell import ChunkShell
from forebay_worker.store.checksums import sums_of
from forebay_worker.store.tiered import Lease
from forebay_worker.window import ServedWindow

_HELLO_SECONDS = 10.0
_IDLE_SECONDS = 300.0
_BACKLOG = 256
_PIECE = 256 * 1024
_ACCEPT_PAUSE = 0.1

_SMALL = 128 * 1024
"""Answers up to that size are sent by the reactor."""

_SMALL_IN_A_ROW = 4
"""After so many small requests a thread gives a stream back."""

_log = structlog.get_logger()


def check_range(one: ObjectVersion, offset: int, length: int) -> None:
    """InvalidRequest unless the range is one that the protocol allows."""
    if length <= 0 or offset + length > one.size or offset // CHUNK_SIZE != (offset + length - 1) // CHUNK_SIZE:
        raise InvalidRequest("the range does not lie within one chunk of the object")
    if offset % BLOCK_SIZE or block_aligned(offset, length, one.size).length != length:
        raise InvalidRequest("the range does not begin and end at blocks")


class Progress:
    """What every response tells: the newest epoch and generation."""

    def __init__(self, epoch: Callable[[], int], generation: Callable[[], int]) -> None:
        """Both are asked for every response."""
        self.epoch = epoch
        self.generation = generation


class DataServer:
    """Listens on a TCP port until stopped."""

    def __init__(
        self, shell: ChunkShell, admit: Callable[[str], Admission], progress: Progress, metrics: Metrics,
        window: ServedWindow, *, max_connections: int, tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        """``admit`` lets a connection in by its token, or raises; with ``tls`` nothing else is spoken."""
        self._tls = tls
        self._shell = shell
        self._admit = admit
        self._progress = progress
        self._metrics = metrics
        self._window = window
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._connections: set[Stream] = set()
        self._busy: set[Stream] = set()
        self._stopping = False
        self._listener: socket.socket | None = None
        # Threads are kept for the next busy stream. Those that are refused need one too, for a moment.
        self._threads = ThreadPoolExecutor(max_connections + _BACKLOG, "data")
        self._reactor = Reactor(self._speaks, self._drop, _IDLE_SECONDS)

    def start(self, address: str, port: int) -> int:
        """Begin to accept; returns the port."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, port), family=family, backlog=_BACKLOG)
        self._reactor.start()
        threading.Thread(target=self._accept, args=(self._listener,), name="accept", daemon=True).start()
        return int(self._listener.getsockname()[1])

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError as error:
                if self._stopping:
                    return
                # Out of descriptors, most likely: connections that end give some back.
                _log.warning("no connection accepted", error=str(error))
                time.sleep(_ACCEPT_PAUSE)
                continue
            stream = Stream(connection, address[0])
            with self._lock:
                self._connections.add(stream)
                self._metrics.connections.set(len(self._connections))
            self._serve(stream, self._greet)

    def _serve(self, stream: Stream, begin: Callable[[Stream], object]) -> None:
        """Let a thread do what begins the stream's service, and go on with it."""
        try:
            self._threads.submit(self._converse, stream, begin).add_done_callback(_report_bug)
        except RuntimeError:
            # The process is stopping.
            self._end(stream)

    def _converse(self, stream: Stream, begin: Callable[[Stream], object]) -> None:
        """Answer until the stream is quiet or asks for little; an encrypted one to its end: no poll sees into it."""
        afterwards: Callable[[Stream], None] | None = self._end
        try:
            begin(stream)
            small = 0
            while True:
                asked = stream.next()
                if asked is not None:
                    was_hit = self._answer(stream, asked)
                    # The reactor could not answer what must be fetched.
                    small = small + 1 if was_hit and asked.length <= _SMALL else 0
                elif self._stopping or (small >= _SMALL_IN_A_ROW and not stream.secured) or not stream.receive():
                    break
            if not stream.secured:
                afterwards = self._reactor.watch
        except _PassedOn:
            afterwards = None
        except (Closed, OSError, InvalidRequest):
            # A broken or malformed stream cannot be answered any more; its end says so.
            pass
        finally:
            if afterwards is not None:
                afterwards(stream)

    def _end(self, stream: Stream) -> None:
        with self._lock:
            self._connections.discard(stream)
            self._metrics.connections.set(len(self._connections))
        stream.socket.close()

    def _drop(self, stream: Stream) -> None:
        """End a stream that the reactor watches."""
        self._reactor.release(stream)
        self._end(stream)

    def _greet(self, stream: Stream) -> None:
        """Check the hello; Closed when it was refused."""
        if self._tls is not None:
            stream.secure(self._tls, _HELLO_SECONDS)
        stream.wait_at_most(_HELLO_SECONDS)
        token = stream.hello()
        try:
            if len(self._connections) > self._max_connections:
                raise Overloaded("this worker has as many connections as it may", retry_after=1.0)
            stream.admission = self._admit(token)
        except ForebayError as error:
            self._send_error(stream, 0, error)
            raise Closed from error
        stream.socket.sendall(self._head(wire.STATUS_OK, 0, 0, 0))
        stream.wait_at_most(_IDLE_SECONDS if stream.secured else LINGER_SECONDS)

    def _speaks(self, stream: Stream) -> None:
        """In the reactor's thread: answer what needs no waiting, let a thread do the rest."""
        try:
            # Nothing, when it was somebody else who spoke, on a descriptor of the same number.
            stream.receive()
            while (asked := stream.next()) is not None:
                rest = self._answer_small(stream, asked)
                if rest is not None:
                    self._reactor.release(stream)
                    stream.socket.setblocking(True)
                    self._serve(stream, rest)
                    return
        except (Closed, OSError, InvalidRequest):
            self._drop(stream)

    def _answer_small(self, stream: Stream, asked: Asked) -> Callable[[Stream], object] | None:
        """Answer a small hit; else what a thread has to do."""
        in_full = partial(self._answer, asked=asked)
        if asked.length > _SMALL or self._stopping:
            return in_full
        try:
            request = _checked(stream, asked)
        except ForebayError:
            return in_full
        lease = self._shell.at_hand(request.object, request.offset // CHUNK_SIZE)
        if lease is None:
            return in_full
        within = request.offset % CHUNK_SIZE
        if not lease.plain or not lease.is_resident(within, request.length):
            lease.release()
            return in_full
        stream.quiet_since = time.monotonic()
        self.count(request, self._tier_name(lease.tier), hit=True)
        head = self.ok(request, sums_of(lease.sums, within, request.length))
        answer = _Answer(lease, head, within, request.length)
        try:
            whole = answer.send(stream)
        except BaseException:
            lease.release()
            raise
        if not whole:
            return partial(self._finish, answer)
        lease.release()
        return None

    def _finish(self, answer: "_Answer", stream: Stream) -> None:
        """Send, in a thread, what the stream did not take at once."""
        self._busy.add(stream)
        try:
            answer.send(stream)
        finally:
            answer.lease.release()
            self.no_longer_busy(stream)

    def _head(self, status: int, request_id: int, blocks: int, length: int, retry_after: float = 0.0) -> bytes:
        progress = self._progress
        return wire.encode_response(
            ResponseHead(status, blocks, request_id, progress.epoch(), progress.generation(), length, retry_after)
        )

    def ok(self, request: ReadRequest, sums: bytes) -> bytes:
        """All of a response but its payload, of which these are the checksums."""
        return self._head(wire.STATUS_OK, request.id, block_count(request.length), request.length) + sums

    def _answer(self, stream: Stream, asked: Asked) -> bool:
        """Answer a request, whatever that takes; whether it was a hit. _PassedOn when the stream is no longer ours."""
        self._busy.add(stream)
        delivery: _Delivery | None = None
        try:
            request = _checked(stream, asked)
            if request.length <= _SMALL and not stream.secured:
                delivery = _Delivery(self, stream, request)
            got = self._shell.get(request, lambda: self._announce(stream, request), delivery)
            if got is not None:
                self._send(stream, request, got)
            elif delivery is not None:
                delivery.finish()
            return isinstance(got, Lease)
        except ForebayError as error:
            self._metrics.request_errors.labels(error.reason).inc()
            self._send_error(stream, asked.id, error)
            if isinstance(error, Unauthorized):
                raise Closed from error
        except RuntimeError as error:
            # Executors refuse work once the process is stopping.
            self._send_error(stream, asked.id, WorkerUnavailable(f"this worker stops ({error})"))
        finally:
            if delivery is None or not delivery.passed_on:
                self.no_longer_busy(stream)
        return False

    def pass_on(self, stream: Stream) -> None:
        """Let the reactor watch a stream whose thread has something else to do."""
        self.no_longer_busy(stream)
        self._reactor.watch(stream)

    def no_longer_busy(self, stream: Stream) -> None:
        """The answer is out."""
        self._busy.discard(stream)
        if self._stopping:
            with self._idle:
                self._idle.notify_all()

    def _announce(self, stream: Stream, request: ReadRequest) -> None:
        """The chunk must be fetched first: tell a client that wants to know."""
        self._shell.awaited(request.object, request.offset // CHUNK_SIZE, stream.reader)
        if request.flags & Flag.ANNOUNCE:
            stream.socket.sendall(self._head(wire.STATUS_FETCHING, request.id, 0, 0))

    def _send_error(self, stream: Stream, request_id: int, error: ForebayError) -> None:
        sentence = error.message.encode()[: wire.MAX_MESSAGE]
        head = self._head(error.code, request_id, 0, len(sentence), error.retry_after or 0.0)
        stream.socket.sendall(head + sentence)

    def _send(self, stream: Stream, request: ReadRequest, got: Lease | Part) -> None:
        if isinstance(got, Part):
            stream.send_part(self.ok(request, got.sums))
            stream.socket.sendall(got.data)
            self.count(request, got.source, hit=False)
            return
        within = request.offset % CHUNK_SIZE
        head = self.ok(request, sums_of(got.sums, within, request.length))
        try:
            _Answer(got, head, within, request.length).send(stream)
        finally:
            got.release()
        self.count(request, self._tier_name(got.tier), hit=True)

    def _tier_name(self, tier: int) -> str:
        cache = self._shell.cache
        return "" if cache is None else cache.store.medium(tier)

    def count(self, request: ReadRequest, place: str, *, hit: bool) -> None:
        """Count a response, from that place."""
        if request.flags & Flag.INSTEAD:
            self._metrics.instead_bytes.inc(request.length)
        if request.flags & Flag.PEER:
            self._metrics.peer_served_bytes.inc(request.length)
            return
        self._metrics.served(place, request.length, hit=hit)
        self._window.add(request.length, hit=hit)

    def stop(self, seconds: float) -> None:
        """Accept no more, let answers under way end, then close all streams."""
        self._stopping = True
        if self._listener is not None:
            # A close alone does not wake the thread that accepts.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        with self._idle:
            self._idle.wait_for(lambda: not self._busy, timeout=seconds)
            for stream in self._connections:
                with contextlib.suppress(OSError):
                    stream.socket.shutdown(socket.SHUT_RDWR)
        self._reactor.stop()
        self._threads.shutdown(wait=False)


def _checked(stream: Stream, asked: Asked) -> ReadRequest:
    """The request, if the stream may make it; a ForebayError otherwise."""
    admission = stream.admission
    assert admission is not None, "streams are admitted before they are served"
    admission.check()
    one = asked.object
    if one.dataset != admission.dataset:
        raise InvalidRequest("the token opens another dataset")
    check_range(one, asked.offset, asked.length)
    return ReadRequest(asked.id, one, asked.offset, asked.length, Flag(asked.flags))


def _report_bug(service: Future[None]) -> None:
    """An executor keeps errors to itself."""
    error = service.exception() if not service.cancelled() else None
    if error is not None:
        _log.critical("a request failed", exc_info=(type(error), error, error.__traceback__))


class _PassedOn(Exception):
    """Another thread looks after the stream now."""


class _Delivery:
    """The answer to a request whose thread fetches the chunk itself: sent from within the fetch, without waiting.

    The rest of the chunk may take long, so the stream is passed on, unless its reader did not take all of the answer
    at once, or asks for more already.
    """

    __slots__ = ("_left", "_problem", "_request", "_server", "_stream", "passed_on")

    def __init__(self, server: DataServer, stream: Stream, request: ReadRequest) -> None:
        self._server = server
        self._stream = stream
        self._request = request
        self._left: list[memoryview] = []
        self._problem: OSError | None = None
        self.passed_on = False

    def __call__(self, part: Part) -> None:
        head = self._server.ok(self._request, part.sums)
        try:
            sent = self._stream.send_now(head, part.data)
        except OSError as error:
            self._problem = error
            return
        self._server.count(self._request, part.source, hit=False)
        if sent == len(head) + len(part.data) and self._stream.is_quiet:
            self.passed_on = True
            self._server.pass_on(self._stream)
        else:
            self._left = [memoryview(head)[sent:], part.data[max(0, sent - len(head)) :]]

    def finish(self) -> None:
        """After the fetch: send what is left. _PassedOn, or the OSError that sending met."""
        if self.passed_on:
            raise _PassedOn
        if self._problem is not None:
            raise self._problem
        for piece in self._left:
            self._stream.socket.sendall(piece)


class _Answer:
    """A hit on its way out: what is left of its head, then of its place in the chunk's file."""

    __slots__ = ("_end", "_head", "_position", "lease")

    def __init__(self, lease: Lease, head: bytes, within: int, length: int) -> None:
        self.lease = lease
        self._head = head
        self._position = lease.offset + within
        self._end = self._position + length

    def send(self, stream: Stream) -> bool:
        """Send as much as the stream takes, which is all of it where that blocks; whether all is sent."""
        try:
            if self._head:
                self._head = self._head[stream.send_part(self._head) :]
            while not self._head and self._position < self._end:
                count = self._send_some(stream, self._end - self._position)
                if not count:
                    # The file is shorter than the catalogue says; the head is out, so only the stream's end can tell.
                    self.lease.damaged()
                    raise Closed
                self._position += count
        except BlockingIOError:
            if stream.blocks:
                # The kernel's time limit: nobody reads at the other end.
                raise
        except OSError as error:
            if error.errno == errno.EIO:
                # Sockets do not give this: the disk cannot read the chunk.
                self.lease.damaged()
            raise
        return not self._head and self._position == self._end

    def _send_some(self, stream: Stream, length: int) -> int:
        """Some of the file; what is encrypted in it passes through us, on streams that block."""
        if self.lease.plain:
            return stream.send_file(self.lease.fd, self._position, length)
        piece = self.lease.read(self._position - self.lease.offset, min(length, _PIECE))
        stream.socket.sendall(piece)
        return len(piece)
