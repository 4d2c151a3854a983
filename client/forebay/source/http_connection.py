"""One HTTP/1.1 connection to a store: GET and HEAD, each answer's head checked, its body read into the caller's memory.

Why not a library: every read of a cold byte goes through here, and a store is believed in nothing. The client
libraries hand over what they do not check, cannot be ended from another thread, and cost more CPU than the fill
may take (docs/adr/0015-an-http-client-for-stores.md).
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from forebay.source.base import Arrived
from forebay.source.deadline import Deadline, Pace, Patience

_MOST_COLLECTED = 256 * 1024
_FIRST = 64 * 1024
"""Somebody may wait for the beginning."""

_MOST_HEAD = 64 * 1024
_MOST_TEXT = 16 * 1024 * 1024
_PIECE = 64 * 1024
_NO_BODY = {204, 304}


class MalformedAnswer(Exception):
    """What came is not HTTP, or not what its head announced."""


class Host(NamedTuple):
    """Where a store listens."""

    scheme: str
    name: str
    port: int

    @property
    def header(self) -> str:
        """The Host header: the port only where it is not the scheme's own, for signatures cover it."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port == (443 if self.scheme == "https" else 80) else f"{name}:{self.port}"


class Request(NamedTuple):
    """What is asked: the target is a percent-encoded path with its query, ``expected`` the bytes of an object."""

    method: str
    target: str
    headers: dict[str, str]
    expected: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer. Header names are lower case; ``length`` is None for a body without announced length."""

    status: int
    headers: dict[str, str] = field(repr=False)
    length: int | None
    chunked: bool
    keep_alive: bool


def parse_head(raw: bytes, *, bodiless: bool) -> Head:
    """Read status line and headers; MalformedAnswer when they are not HTTP/1.1's."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (rest[:3].isascii() and rest[:3].isdigit()):
        raise MalformedAnswer("the answer does not begin with an HTTP status line")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise MalformedAnswer("the answer has a malformed header line")
        name, value = name.lower(), value.strip(" \t")
        if name == "content-length" and headers.get(name, value) != value:
            raise MalformedAnswer("the answer announces two different lengths")
        headers[name] = value
    status = int(rest[:3])
    chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    if bodiless or status in _NO_BODY:
        length: int | None = 0
    elif chunked:
        length = None
    else:
        length = _length(headers.get("content-length"))
    connection = headers.get("connection", "").lower()
    keep = (version == "HTTP/1.1" and "close" not in connection) or "keep-alive" in connection
    return Head(status, headers, length, chunked and not bodiless, keep and (chunked or length is not None))


def _length(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise MalformedAnswer("the answer announces a length that is no number")
    return int(text)


class HttpConnection:
    """Used by one thread at a time; only ``abort`` may come from another."""

    def __init__(self, host: Host, tls: ssl.SSLContext | None, patience: Patience) -> None:
        """Nothing is connected yet."""
        self._host = host
        self._tls = tls
        self._patience = patience
        self._socket: socket.socket | None = None
        self._aborted = False
        self._rest = b""
        self._least = 1
        self.reusable = False
        """Whether the last answer was read to its end and another request may follow."""

    def connect(self, deadline: Deadline) -> None:
        """Open the connection; OSError when that fails."""
        within = deadline.need(self._patience.connect)
        plain = socket.create_connection((self._host.name, self._host.port), timeout=within)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = plain
        if self._tls is not None:
            try:
                self._socket = self._tls.wrap_socket(plain, server_hostname=self._host.name)
            except BaseException:
                plain.close()
                raise
        if self._aborted:
            raise ConnectionAbortedError("the request was given up")

    @property
    def is_stale(self) -> bool:
        """Whether an idle connection was ended by the other side: it has something to read though nothing was asked."""
        sock = self._socket
        if sock is None:
            return True
        sock.setblocking(False)
        try:
            return sock.recv(1) is not None
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True

    def ask(self, request: Request, deadline: Deadline) -> Head:
        """Send a request and read the head of its answer."""
        self.reusable = False
        lines = [f"{request.method} {request.target} HTTP/1.1", f"Host: {self._host.header}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header or the target has a line break")
        encoded = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        sock = self._open_socket()
        sock.settimeout(deadline.need(self._patience.head))
        sock.sendall(encoded)
        limit = Deadline(self._patience.head, deadline)
        while True:
            head = parse_head(self._receive_head(limit), bodiless=request.method == "HEAD")
            if head.status >= 200:
                self.reusable = head.length == 0 and head.keep_alive and not self._rest
                return head

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionAbortedError("the connection is closed")
        return self._socket

    def _receive_head(self, deadline: Deadline) -> bytes:
        received = self._rest
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > _MOST_HEAD:
                raise MalformedAnswer(f"the answer's head has more than {_MOST_HEAD} bytes")
            received += self._receive(_PIECE, deadline)
        self._rest = received[end + 4 :]
        return received[:end]

    def _receive(self, most: int, deadline: Deadline) -> bytes:
        sock = self._open_socket()
        sock.settimeout(deadline.need(self._patience.stall_seconds * 2))
        piece = sock.recv(most)
        if not piece:
            raise ConnectionResetError("the connection ended within an answer")
        return piece

    def body_into(
        self, head: Head, buffer: memoryview, deadline: Deadline, received: Callable[[int], None], arrived: Arrived
    ) -> None:
        """Fill the buffer with a body of exactly its length.

        ``received`` is told the bytes once, also of a broken body; ``arrived`` again and again how many there are.
        """
        if head.length != len(buffer):
            raise MalformedAnswer(f"the answer announces {head.length} bytes where {len(buffer)} were asked for")
        position = min(len(self._rest), len(buffer))
        buffer[:position] = self._rest[:position]
        self._rest = self._rest[position:]
        pace, sock = Pace(self._patience), self._open_socket()
        try:
            if position:
                arrived(position)
            while position < len(buffer):
                collected = _MOST_COLLECTED if position >= _FIRST else _FIRST - position
                self._wake_after(min(len(buffer) - position, collected))
                sock.settimeout(deadline.need(self._patience.stall_seconds))
                count = self._receive_into(sock, buffer[position:])
                if not count:
                    raise ConnectionResetError(f"the answer ended after {position} of {len(buffer)} bytes")
                position += count
                arrived(position)
                pace.arrived(count)
        finally:
            received(position)
        self._wake_after(1)
        self.reusable = head.keep_alive and not self._rest

    def _wake_after(self, count: int) -> None:
        """Let the kernel collect much of a large body before it wakes us: each time costs Python its lock."""
        least = count if self._tls is None else 1
        if least != self._least:
            self._open_socket().setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
            self._least = least

    def _receive_into(self, sock: socket.socket, buffer: memoryview) -> int:
        """Receive some; TimeoutError when nothing came in time."""
        try:
            return sock.recv_into(buffer)
        except TimeoutError:
            if self._least == 1:
                raise
        # Less than what was to be collected, perhaps: whether it is too little is for the pace to say.
        sock.setblocking(False)
        try:
            return sock.recv_into(buffer)
        except BlockingIOError as error:
            raise TimeoutError("nothing of the answer came in time") from error

    def text(self, head: Head, deadline: Deadline) -> bytes:
        """A small body, whatever its framing; MalformedAnswer when it is not small."""
        if head.chunked:
            body = self._chunks(deadline)
        elif head.length is None:
            body = self._until_end(deadline)
        else:
            body = self._exactly(_within(head.length), deadline)
        self.reusable = head.keep_alive and not self._rest
        return body

    def _exactly(self, length: int, deadline: Deadline) -> bytes:
        pieces, have = [self._rest], len(self._rest)
        while have < length:
            pieces.append(self._receive(_PIECE, deadline))
            have += len(pieces[-1])
        whole = b"".join(pieces)
        self._rest = whole[length:]
        return whole[:length]

    def _until_end(self, deadline: Deadline) -> bytes:
        pieces = [self._rest]
        with contextlib.suppress(ConnectionResetError):
            while True:
                pieces.append(self._receive(_PIECE, deadline))
                _within(sum(map(len, pieces)))
        self._rest = b""
        return b"".join(pieces)

    def _chunks(self, deadline: Deadline) -> bytes:
        pieces: list[bytes] = []
        while size := self._chunk_size(deadline):
            _within(sum(map(len, pieces)) + size)
            pieces.append(self._exactly(size, deadline))
            if self._exactly(2, deadline) != b"\r\n":
                raise MalformedAnswer("a chunk of the answer is longer than it announced")
        while self._line(deadline):
            pass
        return b"".join(pieces)

    def _chunk_size(self, deadline: Deadline) -> int:
        text = self._line(deadline).partition(b";")[0].strip()
        try:
            return int(text, 16)
        except ValueError:
            raise MalformedAnswer("a chunk of the answer has no size") from None

    def _line(self, deadline: Deadline) -> bytes:
        while (end := self._rest.find(b"\r\n")) < 0:
            if len(self._rest) > _MOST_HEAD:
                raise MalformedAnswer("a line of the answer does not end")
            self._rest += self._receive(_PIECE, deadline)
        line, self._rest = self._rest[:end], self._rest[end + 2 :]
        return line

    def abort(self) -> None:
        """Let whoever waits for this connection fail at once. Callable from any thread."""
        self._aborted = True
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                # Not the TLS object's own method: that one lets go of the session, and the reader would go on in clear.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def __del__(self) -> None:
        self.close()


def _within(length: int) -> int:
    if length > _MOST_TEXT:
        raise MalformedAnswer(f"the answer has more than {_MOST_TEXT} bytes where a small one was expected")
    return length
