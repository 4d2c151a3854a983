"""A plain HTTP proxy before an S3 server: counts what the store is asked for, and breaks answers on request."""

import contextlib
import http.client
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from typing_extensions import override

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
_LONGEST_SILENCE = 60.0
"""Seconds after which a stalled or dripping answer ends even when its reader still waits."""
_DRIP_PAUSE = 0.2


class Ending(Enum):
    """What happens after the ``cut`` bytes of an answer."""

    CLOSE = auto()
    RESET = auto()
    STALL = auto()
    """Nothing more comes, but the connection stays."""
    DRIP = auto()
    """The rest comes a byte at a time."""
    GATE = auto()
    """The rest comes when the answer's gate is opened."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request for an object or a listing, and how it was answered."""

    method: str
    path: str
    range: str
    status: int
    bytes_sent: int


@dataclass(slots=True)
class StoreAnswer:
    """An answer on its way to the client; faults change it.

    After ``cut`` bytes of its body it ends as ``ending`` says; a negative cut ends it before its head.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    cut: int | None = None
    ending: Ending = Ending.CLOSE
    method: str = "GET"
    range: str = ""
    """The method and the Range header of the request that this answers."""
    gate: threading.Event = field(default_factory=threading.Event)


Fault = Callable[[str, StoreAnswer], None]
"""Given the request's path; changes the answer in place."""


@dataclass(slots=True)
class _Ledger:
    upstream: tuple[str, int]
    seen: list[Seen] = field(default_factory=list)
    fault: Fault | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class StoreProxy:
    """Listens on a port of its own; ``seen`` grows with every request."""

    def __init__(self, upstream: str) -> None:
        """``upstream`` is the store's URL."""
        parts = urlsplit(upstream)
        self._ledger = _Ledger((parts.hostname or "127.0.0.1", parts.port or 80))
        self._server = _Server(("127.0.0.1", 0), _handler(self._ledger))
        serve: Callable[[], None] = lambda: self._server.serve_forever(poll_interval=0.02)  # noqa: E731
        self._thread = threading.Thread(target=serve, name="store-proxy", daemon=True)

    @property
    def url(self) -> str:
        """Where clients find the store."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def break_answers(self, fault: Fault | None) -> None:
        """From now on let this function change every answer; None: none."""
        self._ledger.fault = fault

    @property
    def seen(self) -> list[Seen]:
        """All requests until now."""
        with self._ledger.lock:
            return list(self._ledger.seen)

    def object_bytes(self) -> dict[str, int]:
        """Bytes of objects that were sent, by path."""
        total: dict[str, int] = {}
        for one in self.seen:
            if one.method == "GET" and one.range:
                total[one.path] = total.get(one.path, 0) + one.bytes_sent
        return total

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """A thread for every connection, none of which the end waits for."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


def _handler(ledger: _Ledger) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one small class
    """The request handler of one proxy."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1
        _upstream: http.client.HTTPConnection | None = None

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            try:
                answer = self._ask(body)
            except (OSError, http.client.HTTPException):
                self.close_connection = True
                return
            answer.method, answer.range = self.command, self.headers.get("Range", "")
            if ledger.fault is not None:
                ledger.fault(self.path, answer)
            self._send(answer)

        def _ask(self, body: bytes) -> StoreAnswer:
            """The store's own answer; a kept connection that it closed meanwhile is opened anew, once."""
            if self._upstream is not None:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    return self._ask_on(self._upstream, body)
                self._upstream.close()
            self._upstream = http.client.HTTPConnection(*ledger.upstream, timeout=30)
            return self._ask_on(self._upstream, body)

        def _ask_on(self, upstream: http.client.HTTPConnection, body: bytes) -> StoreAnswer:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            got = upstream.getresponse()
            headers = {name: value for name, value in got.getheaders() if name.lower() not in _HOP_BY_HOP}
            return StoreAnswer(got.status, headers, got.read())

        def _send(self, answer: StoreAnswer) -> None:
            body = answer.body if answer.cut is None else answer.body[: max(answer.cut, 0)]
            if answer.cut is None or answer.cut >= 0:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if "content-length" not in {name.lower() for name in answer.headers}:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                self.wfile.flush()
            if answer.cut is not None and answer.ending is Ending.GATE:
                answer.gate.wait(_LONGEST_SILENCE)
                self.wfile.write(answer.body[answer.cut :])
                body, answer.cut = answer.body, None
            path = unquote(urlsplit(self.path).path)
            seen = Seen(self.command, path, answer.range, answer.status, len(body))
            with ledger.lock:
                ledger.seen.append(seen)
            if answer.cut is not None:
                self.close_connection = True
                end(self.connection, answer.ending, answer.body[max(answer.cut, 0) :])

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _forward  # noqa: N815 - the names that the library calls

        @override
        def log_message(self, format: str, *arguments: Any) -> None:
            """Keep the tests' output clean."""

        @override
        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                # A client that gave up is none of our business.
                self.close_connection = True

        @override
        def finish(self) -> None:
            with contextlib.suppress(OSError):
                super().finish()
            if self._upstream is not None:
                self._upstream.close()

    return Handler


def end(stream: socket.socket, ending: Ending, rest: bytes) -> None:
    """Let a stream end as told, with ``rest`` not yet sent; returns when the reader gave up, or after a minute."""
    match ending:
        case Ending.CLOSE | Ending.GATE:
            return
        case Ending.RESET:
            # A linger time of zero makes the close a reset.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.close()
        case Ending.STALL:
            _gave_up(stream, _LONGEST_SILENCE)
        case Ending.DRIP:
            until = time.monotonic() + _LONGEST_SILENCE
            for byte in rest:
                if time.monotonic() > until or _gave_up(stream, _DRIP_PAUSE):
                    return
                with contextlib.suppress(OSError):
                    stream.send(bytes([byte]))


def _gave_up(stream: socket.socket, patience: float) -> bool:
    """Whether the other side closes the stream, or says something, within so many seconds."""
    with contextlib.suppress(OSError, ValueError):
        return bool(select.select([stream], [], [], patience)[0])
    return True
