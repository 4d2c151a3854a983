"""Requests to one store over connections that are kept: whoever asks owns a connection until the answer is read."""

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from forebay.limits import OPEN, Gate
from forebay.source.base import Arrived
from forebay.source.deadline import PATIENCE, Deadline, Patience
from forebay.source.http_connection import Head, Host, HttpConnection, Request
from forebay_protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

_IDLE_SECONDS = 20.0
"""Stores end idle connections after 60 s or so; one that is about to be ended is not worth the attempt."""

_MOST_IDLE = 64


class Attempt:
    """One request under way, which another thread may give up."""

    def __init__(self) -> None:
        """Nothing is under way yet."""
        self._lock = threading.Lock()
        self._connection: HttpConnection | None = None
        self.given_up = False

    def bind(self, connection: HttpConnection) -> None:
        """The connection that the request uses from now on."""
        with self._lock:
            self._connection = connection
            if self.given_up:
                raise ConnectionAbortedError("the request was given up")

    def release(self) -> None:
        """The connection may serve another request: it is not to be ended any more."""
        with self._lock:
            self._connection = None

    def give_up(self) -> None:
        """End the request: whoever waits for its answer gets an error at once."""
        with self._lock:
            self.given_up = True
            if self._connection is not None:
                self._connection.abort()


class Answer:
    """The head of an answer, and the way to its body; valid until the exchange ends."""

    def __init__(self, head: Head, connection: HttpConnection, deadline: Deadline) -> None:
        """Made by the client."""
        self.head = head
        self._connection = connection
        self._deadline = deadline

    def body_into(self, buffer: memoryview, received: Callable[[int], None], arrived: Arrived) -> None:
        """Fill the buffer with a body of exactly its length; see ``HttpConnection.body_into``."""
        self._connection.body_into(self.head, buffer, self._deadline, received, arrived)

    def text(self) -> bytes:
        """A small body."""
        return self._connection.text(self.head, self._deadline)


class HttpClient:
    """Connections to one host. Thread-safe."""

    def __init__(self, host: Host, ca_bundle: str, gate: Gate = OPEN, patience: Patience = PATIENCE) -> None:
        """``ca_bundle``: certificates in PEM to trust, empty for the system's; ``gate``: the mount's limits."""
        self._gate = gate
        self.host = host
        self.patience = patience
        self._tls = tls_context(ca_bundle) if host.scheme == "https" else None
        self._lock = threading.Lock()
        self._idle: deque[tuple[float, HttpConnection]] = deque()
        self._closed = False

    @contextmanager
    def exchange(self, request: Request, limit: Deadline, attempt: Attempt) -> "Iterator[Answer]":
        """Ask when the limits let us, and give the connection back when the block ends."""
        with self._gate.request(request.expected):
            deadline = Deadline(self.patience.whole(request.expected), limit)
            connection, head = self._asked(request, deadline, attempt)
            try:
                yield Answer(head, connection, deadline)
            finally:
                attempt.release()
                self._give_back(connection)

    def _asked(self, request: Request, deadline: Deadline, attempt: Attempt) -> tuple[HttpConnection, Head]:
        kept = self._take_idle()
        if kept is not None:
            try:
                attempt.bind(kept)
                return kept, kept.ask(request, deadline)
            except (ConnectionError, ssl.SSLError):
                # The other side ended it while it was idle; that says nothing about the store.
                kept.close()
                if attempt.given_up:
                    raise
            except BaseException:
                kept.close()
                raise
        fresh = HttpConnection(self.host, self._tls, self.patience)
        try:
            attempt.bind(fresh)
            fresh.connect(deadline)
            return fresh, fresh.ask(request, deadline)
        except BaseException:
            attempt.release()
            fresh.close()
            raise

    def _take_idle(self) -> HttpConnection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since, connection = self._idle.pop()
            if time.monotonic() - since < _IDLE_SECONDS and not connection.is_stale:
                return connection
            connection.close()

    def _give_back(self, connection: HttpConnection) -> None:
        with self._lock:
            if connection.reusable and not self._closed:
                self._idle.append((time.monotonic(), connection))
                if len(self._idle) <= _MOST_IDLE:
                    return
                _, connection = self._idle.popleft()
        connection.close()

    def close(self) -> None:
        """Close the idle connections; those in use are closed when they are given back."""
        with self._lock:
            self._closed = True
            idle = list(self._idle)
            self._idle.clear()
        for _, connection in idle:
            connection.close()


def tls_context(ca_bundle: str) -> ssl.SSLContext:
    """What certificates are checked against; InvalidRequest when the bundle holds none."""
    try:
        return ssl.create_default_context(cadata=ca_bundle or None)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidRequest(
            f"caBundle holds no certificate in PEM ({type(error).__name__}); paste the authority's certificate, "
            "from BEGIN CERTIFICATE to END CERTIFICATE"
        ) from error
