"""The data protocol's server: large chunks go out by sendfile from a thread each, small ones from one thread for all.

A stream that is quiet, or asks for little at a time, is watched by the reactor, which answers small hits itself: for
those, handing Python's one lock from thread to thread would cost more than the answer. Whatever may wait (a large
range, a chunk that must be fetched or verified, a slow reader) is served by a thread, which keeps the stream as long
as one such request follows the other. Requests on one stream are answered in their order.
"""

import contextlib
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
from forebay_worker.serve.accounts import Accounts
from forebay_worker.serve.answers import Answer, Rest
from forebay_worker.serve.delivery import Delivery, PassedOn
from forebay_worker.serve.reactor import Reactor
from forebay_worker.serve.repeats import Known, Repeats
from forebay_worker.serve.stream import LINGER_SECONDS, Asked, Closed, Stream
from forebay_worker.shell import ChunkShell
from forebay_worker.store.checksums import sums_of
from forebay_worker.store.tiered import Lease
from forebay_worker.window import ServedWindow

_HELLO_SECONDS = 10.0
_IDLE_SECONDS = 300.0
_BACKLOG = 256
_ACCEPT_PAUSE = 0.1

_SMALL = 128 * 1024
"""Answers up to that size are sent by the reactor."""

_COPIED = BLOCK_SIZE
"""Repeats of at most so many bytes are copied rather than passed on within the kernel."""

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
        self.accounts = Accounts(shell, metrics, window)
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._connections: set[Stream] = set()
        self._busy: set[Stream] = set()
        self._stopping = False
        self._listener: socket.socket | None = None
        # Threads are kept for the next busy stream. Those that are refused need one too, for a moment.
        self._threads = ThreadPoolExecutor(max_connections + _BACKLOG, "data")
        self._reactor = Reactor(self._speaks, self._drop, _IDLE_SECONDS, self._round_ends)
        self._repeats = Repeats()
        self._repeated: list[Known] = []
        self._room = memoryview(bytearray(wire.RESPONSE.size + 4 + _COPIED))

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
        afterwards: Callable[[Stream], object] | None = self._end
        try:
            begin(stream)
            small = 0
            while True:
                length = self._repeat(stream)
                asked, was_hit = stream.next() if length is None else None, True
                if asked is not None:
                    was_hit = self._answer(stream, asked)
                    # The reactor could not answer what must be fetched.
                    length = asked.length
                if length is not None:
                    small = small + 1 if was_hit and length <= _SMALL else 0
                elif self._stopping or (small >= _SMALL_IN_A_ROW and not stream.secured) or not stream.receive():
                    break
            if not stream.secured:
                afterwards = self._reactor.watch
        except PassedOn:
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
            if self._answer_repeat(stream):
                return
            while (asked := stream.next()) is not None:
                rest = self._answer_small(stream, asked)
                if rest is not None:
                    self._hand_over(stream, rest)
                    return
        except (Closed, OSError, InvalidRequest):
            self._drop(stream)

    def _hand_over(self, stream: Stream, rest: Callable[[Stream], object]) -> None:
        """Let a thread do what the reactor cannot."""
        self._reactor.release(stream)
        stream.socket.setblocking(True)
        self._serve(stream, rest)

    def _answer_repeat(self, stream: Stream) -> bool:
        """In the reactor's thread: answer a request that was answered before, if that is what came; whether it was."""
        known = self._repeats.recognise(stream)
        if known is None or self._stopping:
            return False
        if known.length > _SMALL:
            self._hand_over(stream, _as_it_is)
            return True
        head = self._head_again(stream, known)
        answered = self._copy if known.length <= _COPIED else self._send_file
        if not answered(stream, known, head):
            return False
        self._repeated.append(known)
        return True

    def _head_again(self, stream: Stream, known: Known) -> bytes:
        progress = self._progress
        return wire.repeat_of_response(known.head, stream.pending, progress.epoch(), progress.generation())

    def _copy(self, stream: Stream, known: Known, head: bytes) -> bool:
        """Send a little in one piece: two copies cost less than more system calls."""
        answer = self._room[: len(head) + known.length]
        answer[: len(head)] = head
        if not known.place.copy(known.within, answer[len(head) :]):
            return False
        stream.take_all()
        try:
            sent = stream.socket.send(answer)
        except BlockingIOError:
            sent = 0
        if sent < len(answer):
            self._hand_over(stream, partial(self._finish, Rest(bytes(answer[sent:]))))
        return True

    def _send_file(self, stream: Stream, known: Known, head: bytes) -> bool:
        """Send what the stream takes at once within the kernel, let a thread send the rest."""
        if not known.place.is_resident(known.within, known.length):
            return False
        lease = self._shell.lease_again(known.place)
        if lease is None:
            return False
        stream.take_all()
        rest = self._send_now(stream, Answer(lease, head, known.within, known.length))
        if rest is not None:
            self._hand_over(stream, rest)
        return True

    def _repeat(self, stream: Stream) -> int | None:
        """In a stream's own thread: as ``_answer_repeat``; the length of the answer, None for none."""
        known = self._repeats.recognise(stream)
        lease = None if known is None else self._shell.lease_again(known.place)
        if known is None or lease is None:
            return None
        self._busy.add(stream)
        try:
            head = self._head_again(stream, known)
            stream.take_all()
            Answer(lease, head, known.within, known.length).send(stream)
        finally:
            lease.release()
            self.no_longer_busy(stream)
        self.accounts.repeats([known])
        return known.length

    def _round_ends(self) -> None:
        """Account for what the reactor answered since it last waited, all at once."""
        if self._repeated:
            repeated, self._repeated = self._repeated, []
            self.accounts.repeats(repeated)

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
        place = lease.place()
        if place is None or not place.is_resident(within, request.length):
            lease.release()
            return in_full
        self.accounts.hit(request.flags, request.length, lease.tier)
        head = self.ok(request, sums_of(lease.sums, within, request.length))
        self._repeats.learn(asked.raw, request, within, head, place)
        return self._send_now(stream, Answer(lease, head, within, request.length))

    def _send_now(self, stream: Stream, answer: Answer) -> Callable[[Stream], object] | None:
        """Send what the stream takes at once; what a thread has to do for the rest."""
        try:
            whole = answer.send(stream)
        except BaseException:
            answer.end()
            raise
        if not whole:
            return partial(self._finish, answer)
        answer.end()
        return None

    def _finish(self, answer: Answer | Rest, stream: Stream) -> None:
        """Send, in a thread, what the stream did not take at once."""
        self._busy.add(stream)
        try:
            answer.send(stream)
        finally:
            answer.end()
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
        """Answer a request, whatever that takes; whether it was a hit. PassedOn when the stream is no longer ours."""
        self._busy.add(stream)
        delivery: Delivery | None = None
        try:
            request = _checked(stream, asked)
            if request.length <= _SMALL and not stream.secured:
                delivery = Delivery(stream, request, self.ok, self._delivered)
            got = self._shell.get(request, lambda: self._announce(stream, request), delivery)
            if got is not None:
                self._send(stream, request, got, asked.raw)
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

    def _delivered(self, stream: Stream, request: ReadRequest, part: Part, *, passed_on: bool) -> None:
        """Count what was sent from within a fetch; the reactor watches a stream whose thread goes on with that."""
        self.accounts.miss(request.flags, request.length, part.source)
        if passed_on:
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

    def _send(self, stream: Stream, request: ReadRequest, got: Lease | Part, raw: bytes) -> None:
        if isinstance(got, Part):
            stream.send_part(self.ok(request, got.sums))
            stream.socket.sendall(got.data)
            self.accounts.miss(request.flags, request.length, got.source)
            return
        within = request.offset % CHUNK_SIZE
        head = self.ok(request, sums_of(got.sums, within, request.length))
        try:
            place = got.place()
            if place is not None:
                self._repeats.learn(raw, request, within, head, place)
            Answer(got, head, within, request.length).send(stream)
        finally:
            got.release()
        self.accounts.hit(request.flags, request.length, got.tier)

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


def _as_it_is(_: Stream) -> None:
    """Begin with the request that the stream has already."""


def _report_bug(service: Future[None]) -> None:
    """An executor keeps errors to itself."""
    error = service.exception() if not service.cancelled() else None
    if error is not None:
        _log.critical("a request failed", exc_info=(type(error), error, error.__traceback__))
