"""A TCP relay before a server whose answers it slows down: a server that is alive, and slow."""

import contextlib
import socket
import threading
import time
from typing import Self

_PIECE = 16 * 1024


class Throttle:
    """Listens on a port of its own; all connections share ``bytes_per_second`` from the server to the clients."""

    def __init__(self, port: int, bytes_per_second: float | None = None) -> None:
        """``port`` is the server's, on this machine; None does not slow down."""
        self.bytes_per_second = bytes_per_second
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._streams: set[socket.socket] = set()
        self.sent = 0

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self._listener.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                if self._listener.fileno() < 0:
                    return
                continue
            self._streams |= {client, server}
            for source, sink, slowed in ((client, server, False), (server, client, True)):
                # Small buffers, so that what is slow here is soon felt on both sides.
                sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _PIECE)
                threading.Thread(target=self._relay, args=(source, sink, slowed), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, slowed: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE if slowed and self.bytes_per_second else 64 * _PIECE):
                if slowed:
                    self._pass(len(piece))
                sink.sendall(piece)
        for stream in (source, sink):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def _pass(self, count: int) -> None:
        """Wait for this piece's turn on the shared link."""
        with self._lock:
            self.sent += count
            rate = self.bytes_per_second
            if rate is None:
                return
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / rate
            pause = self._free_at - now
        time.sleep(pause)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="throttle", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()
