"""One connection to a reader: requests as they arrive, whole or in pieces, several at once or one by one."""

import os
import socket
import ssl
import struct
from functools import lru_cache
from typing import NamedTuple

from forebay_protocol import wire
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.keys import ObjectVersion
from forebay_worker.access import Admission

LINGER_SECONDS = 0.02
"""How long a blocking read of a stream waits before it says that nothing came."""

_SEND_SECONDS = 30
_PIECE = 8192
_TLS_PIECE = 256 * 1024
_LONGEST_KNOWN_BODY = 512
_TIMEVAL = struct.Struct("ll")


class Closed(Exception):
    """The other side is gone."""


class Asked(NamedTuple):
    """A request as it was sent: nothing of it has been checked but its form."""

    raw: bytes
    flags: int
    body: bytes
    id: int
    size: int
    offset: int
    length: int

    @property
    def object(self) -> ObjectVersion:
        """The object that it names; InvalidRequest when the body does not parse."""
        read = _known_object if len(self.body) <= _LONGEST_KNOWN_BODY else wire.decode_object
        return read(self.body, self.size)


# Readers ask for the same objects again and again; reading a name and hashing it costs more than all the rest.
_known_object = lru_cache(maxsize=8192)(wire.decode_object)


class Stream:
    """Not for two threads at once. Non-blocking while a reactor watches it, blocking while a thread serves it."""

    __slots__ = ("_pending", "admission", "quiet_since", "reader", "socket")

    def __init__(self, connection: socket.socket, reader: str) -> None:
        """Take over a connection whose hello has not been read yet, from a reader at that address."""
        self.reader = reader
        self.socket = connection
        self.admission: Admission | None = None
        self.quiet_since = 0.0
        self._pending = b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The kernel's time limits: Python's own would make every call two.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(_SEND_SECONDS, 0))

    @property
    def blocks(self) -> bool:
        """Whether a thread serves it now."""
        return self.socket.gettimeout() != 0

    @property
    def is_quiet(self) -> bool:
        """Whether nothing of a further request has arrived yet."""
        return not self._pending

    @property
    def secured(self) -> bool:
        """Whether it speaks TLS."""
        return isinstance(self.socket, ssl.SSLSocket)

    def secure(self, context: ssl.SSLContext, seconds: float) -> None:
        """Speak TLS from here on, after a handshake that may wait for so long at each step."""
        self.socket.settimeout(seconds)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def send_part(self, data: bytes) -> int:
        """Send what more will follow at once; how much was sent, all of it where the stream blocks."""
        if self.blocks:
            self.socket.sendall(data, 0 if self.secured else socket.MSG_MORE)
            return len(data)
        return self.socket.send(data, socket.MSG_MORE)

    def send_now(self, head: bytes, data: memoryview) -> int:
        """Send as much as can be sent without waiting; how much."""
        try:
            return self.socket.sendmsg([head, data], [], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def send_file(self, fd: int, position: int, length: int) -> int:
        """Send some of a file; how much, 0 at its end."""
        if not self.secured:
            return os.sendfile(self.socket.fileno(), fd, position, length)
        piece = os.pread(fd, min(length, _TLS_PIECE), position)
        self.socket.sendall(piece)
        return len(piece)

    def wait_at_most(self, seconds: float) -> None:
        """How long a blocking ``receive`` waits."""
        if self.secured:
            # The kernel's limit would end the stream in the middle of a record.
            self.socket.settimeout(seconds)
            return
        value = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)

    def hello(self) -> str:
        """The token of the hello that begins the stream; Closed when none comes in time, InvalidRequest for another."""
        magic, length = wire.HELLO.unpack(self._exactly(wire.HELLO.size))
        if magic != wire.HELLO_MAGIC or length > wire.MAX_TOKEN:
            raise InvalidRequest("not a hello of this protocol")
        return self._exactly(length).decode("utf-8", "replace")

    def _exactly(self, count: int) -> bytes:
        while len(self._pending) < count:
            if not self.receive():
                raise Closed
        raw, self._pending = self._pending[:count], self._pending[count:]
        return raw

    def receive(self) -> bool:
        """Take in what arrives, in time; False when that is nothing, Closed at the stream's end."""
        try:
            piece = self.socket.recv(_PIECE)
        except BlockingIOError:
            return False
        if not piece:
            raise Closed
        self._pending = self._pending + piece if self._pending else piece
        return True

    @property
    def pending(self) -> bytes:
        """What has arrived and was not taken yet."""
        return self._pending

    def take_all(self) -> None:
        """All of it was understood."""
        self._pending = b""

    def next(self) -> Asked | None:
        """The next request if all of it has arrived; InvalidRequest where none begins."""
        pending, head = self._pending, wire.REQUEST.size
        if len(pending) < head:
            return None
        flags, body_length, request_id, size, offset, length = wire.decode_request_head(pending[:head])
        end = head + body_length
        if len(pending) < end:
            return None
        self._pending = pending[end:]
        return Asked(pending[:end], flags, pending[head:end], request_id, size, offset, length)
