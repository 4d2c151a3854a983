"""The data protocol's server: a thread per connection, chunks go out by sendfile.

Measured in the project's evidence: threads with sendfile reach nginx's throughput, event loops of Python do
not for several connections. Requests on one connection are answered in their order.
"""

import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

import structlog

from forebay_protocol import wire
from forebay_protocol.errors import ForebayError, InvalidRequest, Overloaded, Unauthorized, WorkerUnavailable
from forebay_protocol.keys import BLOCK_SIZE, CHUNK_SIZE, ObjectVersion, block_aligned, block_count
from forebay_protocol.wire import Flag, ReadRequest, ResponseHead
from forebay_worker.access import Admission
from forebay_worker.metrics import Metrics
from forebay_worker.shell import ChunkShell, Fetched
from forebay_worker.store.checksums import sums_of
from forebay_worker.store.tiered import Lease
from forebay_worker.window import ServedWindow

_HELLO_SECONDS = 10.0
_IDLE_SECONDS = 300.0
_SEND_SECONDS = 30.0
_BACKLOG = 256
_TLS_PIECE = 256 * 1024
_ACCEPT_PAUSE = 0.1
_TIMEVAL = struct.Struct("ll")

_log = structlog.get_logger()


class _Closed(Exception):
    """The other side is gone."""


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
        self._connections: set[socket.socket] = set()
        self._busy = 0
        self._stopping = False
        self._listener: socket.socket | None = None

    def start(self, address: str, port: int) -> int:
        """Begin to accept; returns the port."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, port), family=family, backlog=_BACKLOG)
        threading.Thread(target=self._accept, args=(self._listener,), name="accept", daemon=True).start()
        return int(self._listener.getsockname()[1])

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError as error:
                if self._stopping:
                    return
                # Out of descriptors, most likely: connections that end give some back.
                _log.warning("no connection accepted", error=str(error))
                time.sleep(_ACCEPT_PAUSE)
                continue
            with self._lock:
                self._connections.add(stream)
                self._metrics.connections.set(len(self._connections))
            threading.Thread(target=self._serve, args=(stream,), name="data", daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                stream = self._secured(stream, self._tls)
            _patience(stream, _HELLO_SECONDS)
            admission = self._greet(stream)
            if admission is not None:
                _patience(stream, _IDLE_SECONDS)
                while not self._stopping:
                    self._answer(stream, admission)
        except (_Closed, OSError, InvalidRequest):
            # A broken or malformed stream cannot be answered any more; its end says so.
            pass
        finally:
            with self._lock:
                self._connections.discard(stream)
                self._metrics.connections.set(len(self._connections))
            stream.close()

    def _secured(self, stream: socket.socket, tls: ssl.SSLContext) -> socket.socket:
        """The stream after the TLS handshake, in the place of the plain one."""
        stream.settimeout(_HELLO_SECONDS)
        wrapped = tls.wrap_socket(stream, server_side=True)
        with self._lock:
            self._connections.discard(stream)
            self._connections.add(wrapped)
        return wrapped

    def _greet(self, stream: socket.socket) -> Admission | None:
        """Check the hello; what it admits to, or None when it was refused."""
        magic, length = wire.HELLO.unpack(_receive(stream, wire.HELLO.size))
        if magic != wire.HELLO_MAGIC or length > wire.MAX_TOKEN:
            raise InvalidRequest("not a hello of this protocol")
        token = _receive(stream, length).decode("utf-8", "replace")
        try:
            if len(self._connections) > self._max_connections:
                raise Overloaded("this worker has as many connections as it may", retry_after=1.0)
            admission = self._admit(token)
        except ForebayError as error:
            self._send_error(stream, 0, error)
            return None
        stream.sendall(self._head(wire.STATUS_OK, 0, 0, 0))
        return admission

    def _head(self, status: int, request_id: int, blocks: int, length: int, retry_after: float = 0.0) -> bytes:
        progress = self._progress
        return wire.encode_response(
            ResponseHead(status, blocks, request_id, progress.epoch(), progress.generation(), length, retry_after)
        )

    def _answer(self, stream: socket.socket, admission: Admission) -> None:
        raw = _receive(stream, wire.REQUEST.size)
        flags, body_length, request_id, size, offset, length = wire.decode_request_head(raw)
        one = wire.decode_object(_receive(stream, body_length), size)
        with self._lock:
            self._busy += 1
        try:
            admission.check()
            if one.dataset != admission.dataset:
                raise InvalidRequest("the token opens another dataset")
            check_range(one, offset, length)
            request = ReadRequest(request_id, one, offset, length, Flag(flags))
            got = self._shell.get(one, offset // CHUNK_SIZE, request.flags, lambda: self._announce(stream, request))
            self._send(stream, request, got)
        except ForebayError as error:
            self._metrics.request_errors.labels(error.reason).inc()
            self._send_error(stream, request_id, error)
            if isinstance(error, Unauthorized):
                raise _Closed from error
        except RuntimeError as error:
            # Executors refuse work once the process is stopping.
            self._send_error(stream, request_id, WorkerUnavailable(f"this worker stops ({error})"))
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def _announce(self, stream: socket.socket, request: ReadRequest) -> None:
        """Tell a client that wants to know that the chunk must be fetched first."""
        if request.flags & Flag.ANNOUNCE:
            stream.sendall(self._head(wire.STATUS_FETCHING, request.id, 0, 0))

    def _send_error(self, stream: socket.socket, request_id: int, error: ForebayError) -> None:
        sentence = error.message.encode()[: wire.MAX_MESSAGE]
        head = self._head(error.code, request_id, 0, len(sentence), error.retry_after or 0.0)
        stream.sendall(head + sentence)

    def _send(self, stream: socket.socket, request: ReadRequest, got: Lease | Fetched) -> None:
        within = request.offset % CHUNK_SIZE
        head = self._head(wire.STATUS_OK, request.id, block_count(request.length), request.length)
        head += sums_of(got.sums, within, request.length)
        peer = bool(request.flags & Flag.PEER)
        if request.flags & Flag.INSTEAD:
            self._metrics.instead_bytes.inc(request.length)
        if isinstance(got, Fetched):
            stream.sendall(head, socket.MSG_MORE)
            stream.sendall(got.data[within : within + request.length])
            self._count(request.length, got.source, hit=False, peer=peer)
            return
        try:
            stream.sendall(head, socket.MSG_MORE)
            _send_file(stream, got, within, request.length)
        finally:
            got.release()
        self._count(request.length, self._tier_name(got.tier), hit=True, peer=peer)

    def _tier_name(self, tier: int) -> str:
        cache = self._shell.cache
        return "" if cache is None else cache.store.medium(tier)

    def _count(self, length: int, place: str, *, hit: bool, peer: bool) -> None:
        if peer:
            self._metrics.peer_served_bytes.inc(length)
            return
        (self._metrics.hit_bytes if hit else self._metrics.miss_bytes).labels(place).inc(length)
        self._window.add(length, hit=hit)

    def stop(self, seconds: float) -> None:
        """Accept no more, let answers under way end, then close all streams."""
        self._stopping = True
        if self._listener is not None:
            # A close alone does not wake the thread that accepts.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        deadline = time.monotonic() + seconds
        with self._idle:
            while self._busy and time.monotonic() < deadline:
                self._idle.wait(deadline - time.monotonic())
            for stream in self._connections:
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)


def _patience(stream: socket.socket, receive: float) -> None:
    """Blocking with the kernel's time limits: Python's own would make every call two."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(int(receive), 0))
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(_SEND_SECONDS), 0))


def _receive(stream: socket.socket, length: int) -> bytes:
    raw = bytearray(length)
    view = memoryview(raw)
    while view:
        count = stream.recv_into(view)
        if not count:
            raise _Closed
        view = view[count:]
    return bytes(raw)


def _send_file(stream: socket.socket, lease: Lease, within: int, length: int) -> None:
    position, end = lease.offset + within, lease.offset + within + length
    while position < end:
        count = _send_piece(stream, lease.fd, position, end - position)
        if not count:
            # The file is shorter than the catalogue says; the head is out, so only the stream's end can tell.
            lease.damaged()
            raise _Closed
        position += count


def _send_piece(stream: socket.socket, fd: int, position: int, length: int) -> int:
    """Send some of a file; how much, 0 at its end."""
    if not isinstance(stream, ssl.SSLSocket):
        return os.sendfile(stream.fileno(), fd, position, length)
    piece = os.pread(fd, min(length, _TLS_PIECE), position)
    stream.sendall(piece)
    return len(piece)
