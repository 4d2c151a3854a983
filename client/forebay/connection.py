"""One stream to one worker: say hello, then ask for ranges and verify what comes.

The receiver verifies: nothing that ``read_into`` returns from has not been checked against the checksums in
the response, block by block.
"""

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

import google_crc32c

from forebay.tls import ClientTls
from forebay_protocol import wire
from forebay_protocol.errors import (
    ChecksumMismatch,
    ForebayError,
    InvalidRequest,
    Unauthorized,
    WorkerUnavailable,
    from_code,
)
from forebay_protocol.keys import BLOCK_SIZE, block_count

TokenProvider = Callable[[], str]
"""Gives a token that is valid now; called once for every connection."""

_PEER_SILENCE = 3.0
"""Seconds without a sign of life from the peer's kernel after which a connection is broken."""

_TIMEVAL = struct.Struct("ll")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds: to connect, and to get a whole answer (a worker may have to ask the store first)."""

    connect: float = 2.0
    answer: float = 12.0


DEFAULT_TIMEOUTS = Timeouts()


class Watch(Protocol):
    """Looks after one read while it runs. Called in the thread that reads, but for what ``begin`` was given."""

    due: float
    """Monotonic time at which to call ``late`` unless the read is over."""
    was_late: bool
    """Whether ``late`` was ever called."""
    over: bool
    """Whether somebody else had the bytes first, or the read was given up."""
    lost: bool
    """Whether, being over, it was beaten although it had begun first."""

    def begin(self, abort: Callable[[], None]) -> None:
        """The request is about to be sent; ``abort``, from any thread, ends the read with an error at once."""

    def fetching(self) -> None:
        """The worker said that it has to fetch the chunk first."""

    def answering(self) -> None:
        """The worker has fetched the chunk and begins to send it."""

    def late(self, received: int) -> None:
        """So many bytes came until ``due``: set another ``due``, or raise a ForebayError to give the read up."""

    def end(self) -> None:
        """The read is over: ``abort`` must not be called any more."""


def verify(data: memoryview, checksums: Sequence[int], origin: str) -> None:
    """Compare every block of ``data`` with its crc32c; ChecksumMismatch names the origin and the block."""
    for index, expected in enumerate(checksums):
        # The checksum library takes only immutable bytes; copying a block costs less than checking it.
        if google_crc32c.value(bytes(data[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE])) != expected:
            raise ChecksumMismatch(f"{origin} sent bytes that do not match their checksum (block {index})")


class WorkerConnection:
    """A connected and authenticated stream. Not for two threads at once.

    ``closed`` is true after anything that leaves the stream in an unknown state; an error that the worker
    itself answered does not. ``last_head`` is the newest response head, also of such an error.
    """

    def __init__(
        self,
        address: str,
        port: int,
        token_provider: TokenProvider,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        tls: ClientTls | None = None,
    ) -> None:
        """Connect and say hello; WorkerUnavailable or Unauthorized when that fails."""
        self.name = f"worker {address}:{port}"
        self.closed = False
        self.last_head: wire.ResponseHead | None = None
        self._timeouts = timeouts
        self._next_id = 0
        token = token_provider()
        try:
            self._socket = socket.create_connection((address, port), timeout=timeouts.connect)
        except OSError as error:
            raise WorkerUnavailable(f"{self.name} cannot be reached: {error}") from error
        if tls is not None:
            self._socket = tls.wrap(self._socket, self.name)
        end = time.monotonic() + timeouts.connect
        try:
            self._notice_dead_peers()
            self._wait_until(end, None)
            self._send(wire.encode_hello(token))
            self._raise_status(self._head(end), end)
        except ForebayError:
            self.close()
            raise

    def read_into(
        self,
        request: wire.ReadRequest,
        buffer: memoryview,
        *,
        deadline: float | None = None,
        watch: Watch | None = None,
    ) -> wire.ResponseHead:
        """Fill ``buffer`` (exactly the request's length) with verified bytes.

        The request's id is replaced by the connection's own; ``deadline`` is monotonic time. What the worker
        answers as an error is raised as that error.
        """
        if watch is None:
            return self._read_into(request, buffer, deadline, None)
        watch.begin(self._abort)
        try:
            return self._read_into(request, buffer, deadline, watch)
        finally:
            watch.end()

    def _read_into(
        self, request: wire.ReadRequest, buffer: memoryview, deadline: float | None, watch: Watch | None
    ) -> wire.ResponseHead:
        if len(buffer) != request.length:
            raise InvalidRequest(f"a buffer of {len(buffer)} bytes for a request of {request.length}")
        end = time.monotonic() + self._timeouts.answer
        if deadline is not None:
            end = min(end, deadline)
        self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        numbered = replace(request, id=self._next_id)
        self._wait_until(end, watch)
        self._send(wire.encode_request(numbered))
        head = self._head(end, watch)
        self._raise_status(head, end)
        if (head.id, head.length, head.blocks) != (numbered.id, request.length, block_count(request.length)):
            self.close()
            raise WorkerUnavailable(f"{self.name} answered something else than what it was asked for")
        checksums = bytearray(4 * head.blocks)
        self._fill(memoryview(checksums), end, watch)
        self._fill(buffer, end, watch)
        verify(buffer, struct.unpack(f">{head.blocks}I", checksums), self.name)
        return head

    def _notice_dead_peers(self) -> None:
        # A worker may take its time to ask the store; one whose node is gone is noticed by its kernel's silence.
        for option, value in (
            (socket.TCP_NODELAY, 1),
            (socket.TCP_USER_TIMEOUT, int(_PEER_SILENCE * 1000)),
            (socket.TCP_KEEPIDLE, 1),
            (socket.TCP_KEEPINTVL, 1),
            (socket.TCP_KEEPCNT, int(_PEER_SILENCE) - 1),
        ):
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _abort(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _wait_until(self, end: float, watch: Watch | None) -> None:
        # The kernel's own timeout lets one recv wait for a whole chunk; with Python's timeouts the socket is
        # non-blocking underneath, which costs two system calls for every few hundred KiB.
        self._socket.settimeout(None)
        bounded = max((end if watch is None else min(end, watch.due)) - time.monotonic(), 0.001)
        value = _TIMEVAL.pack(int(bounded), int(bounded % 1 * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def _raise_status(self, head: wire.ResponseHead, end: float) -> None:
        """Raise the error that a response's status stands for, after reading its sentence."""
        if head.status == wire.STATUS_OK:
            return
        if head.length > wire.MAX_MESSAGE or head.blocks:
            self.close()
            raise WorkerUnavailable(f"{self.name} sent a malformed error")
        sentence = bytearray(head.length)
        self._fill(memoryview(sentence), end)
        error = from_code(head.status, sentence.decode("utf-8", "replace"), retry_after=head.retry_after or None)
        if isinstance(error, Unauthorized):
            # The worker ends such a stream.
            self.close()
        raise error

    def _send(self, raw: bytes) -> None:
        try:
            self._socket.sendall(raw)
        except OSError as error:
            self.close()
            raise WorkerUnavailable(f"{self.name} broke the connection: {error}") from error

    def _head(self, end: float, watch: Watch | None = None) -> wire.ResponseHead:
        head = self._any_head(end, watch)
        if head.status == wire.STATUS_FETCHING:
            if watch is not None:
                watch.fetching()
                self._wait_until(end, watch)
            head = self._any_head(end, watch)
            if watch is not None:
                watch.answering()
                self._wait_until(end, watch)
        return head

    def _any_head(self, end: float, watch: Watch | None) -> wire.ResponseHead:
        raw = bytearray(wire.RESPONSE.size)
        self._fill(memoryview(raw), end, watch)
        try:
            self.last_head = wire.decode_response(bytes(raw))
        except InvalidRequest as error:
            self.close()
            raise WorkerUnavailable(f"{self.name} does not speak this protocol: {error}") from error
        return self.last_head

    def _fill(self, view: memoryview, end: float, watch: Watch | None = None) -> None:
        """Receive until the view is full; WorkerUnavailable, and closed, when that does not come by ``end``."""
        position = 0
        while position < len(view):
            try:
                count = self._socket.recv_into(view[position:], 0, socket.MSG_WAITALL)
            except BlockingIOError:
                count = -1
            except OSError as error:
                self._broke(f"broke the connection: {error}")
            if not count:
                self._broke("closed the connection")
            position += max(count, 0)
            if position < len(view):
                self._not_yet(position, end, watch)

    def _not_yet(self, received: int, end: float, watch: Watch | None) -> None:
        now = time.monotonic()
        if now >= end:
            self._broke("did not answer in time")
        if watch is not None and now >= watch.due:
            try:
                watch.late(received)
            except ForebayError:
                self.close()
                raise
        self._wait_until(end, watch)

    def _broke(self, problem: str) -> NoReturn:
        self.close()
        raise WorkerUnavailable(f"{self.name} {problem}")

    def close(self) -> None:
        """Close the stream; again is fine."""
        self.closed = True
        self._socket.close()
