"""A plain HTTP proxy before an S3 server: counts what the store is asked for, and breaks answers on request."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from typing_extensions import override

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


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
    """An answer on its way to the client; faults change it. ``cut`` ends the connection after so many body bytes."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: int | None = None


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
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._ledger))
        self._server.daemon_threads = True
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


def _handler(ledger: _Ledger) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one small class
    """The request handler of one proxy."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            body = self.rfile.read(length)
            upstream = http.client.HTTPConnection(*ledger.upstream, timeout=30)
            try:
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in _HOP_BY_HOP:
                        upstream.putheader(name, value)
                upstream.endheaders(body or None)
                got = upstream.getresponse()
                headers = {name: value for name, value in got.getheaders() if name.lower() not in _HOP_BY_HOP}
                answer = StoreAnswer(got.status, headers, got.read())
            except OSError:
                self.close_connection = True
                return
            finally:
                upstream.close()
            if ledger.fault is not None:
                ledger.fault(self.path, answer)
            self._send(answer)

        def _send(self, answer: StoreAnswer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if "content-length" not in {name.lower() for name in answer.headers}:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            body = answer.body if answer.cut is None else answer.body[: answer.cut]
            if self.command != "HEAD":
                self.wfile.write(body)
            if answer.cut is not None:
                self.close_connection = True
            path = unquote(urlsplit(self.path).path)
            seen = Seen(self.command, path, self.headers.get("Range", ""), answer.status, len(body))
            with ledger.lock:
                ledger.seen.append(seen)

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

    return Handler
