"""A worker for tests of the data protocol's client: honest by default, wrong on request.

It keeps whole objects in memory and speaks the real wire and control protocols over real sockets.
"""

import contextlib
import http.server
import json
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

import google_crc32c
from typing_extensions import override

from forebay_protocol import control, wire
from forebay_protocol.errors import NotCached
from forebay_protocol.keys import BLOCK_SIZE, ObjectVersion
from forebay_protocol.ring import Member, Ring

Fault = Callable[[socket.socket, bytes], bool]
"""Given the connection and the whole honest answer; true when it has answered (or not) in its own way."""


class FakeWorker:
    """Serves ``objects`` (by key) and an index file; ``faults`` are used up one for each answer."""

    def __init__(self, name: str = "w-0") -> None:
        """Listens at once, on ports that the system chooses."""
        self.name = name
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[wire.ReadRequest] = []
        self.tokens: list[str] = []
        self.refuse: tuple[int, str] | None = None
        self.retry_after = 0.0
        self.ring = Ring(epoch=1)
        self.index: tuple[int, bytes] = (0, b"")
        self.routes: list[str] = []
        """What the control API was asked for."""
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.member = Member(
            id=name,
            address="127.0.0.1",
            data_port=self._listener.getsockname()[1],
            control_port=self._http.server_address[1],
        )
        """This worker as a ring names it."""
        for target in (self._accept, lambda: self._http.serve_forever(poll_interval=0.02)):
            threading.Thread(target=target, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError, struct.error):
            _, length = wire.HELLO.unpack(stream.read(wire.HELLO.size))
            self.tokens.append(stream.read(length).decode())
            status, sentence = self.refuse or (0, "")
            connection.sendall(self._answer(status, 0, [], sentence.encode()))
            while head := stream.read(wire.REQUEST.size):
                flags, body, number, size, offset, length = wire.decode_request_head(head)
                one = wire.decode_object(stream.read(body), size)
                request = wire.ReadRequest(number, one, offset, length, wire.Flag(flags))
                self.requests.append(request)
                honest = self._read(request)
                if not (self.faults and self.faults.pop(0)(connection, honest)):
                    connection.sendall(honest)

    def _read(self, request: wire.ReadRequest) -> bytes:
        if request.object.key not in self.objects:
            return self._answer(NotCached.code, request.id, [], b"not here")
        data = self.objects[request.object.key][request.offset : request.offset + request.length]
        blocks = [data[start : start + BLOCK_SIZE] for start in range(0, len(data), BLOCK_SIZE)]
        return self._answer(0, request.id, [google_crc32c.value(block) for block in blocks], data)

    def _answer(self, status: int, number: int, sums: list[int], payload: bytes) -> bytes:
        head = wire.ResponseHead(
            status, len(sums), number, self.ring.epoch, self.index[0], len(payload), self.retry_after
        )
        return wire.encode_response(head) + struct.pack(f">{len(sums)}I", *sums) + payload

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        worker = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                route, _, query = self.path.partition("?")
                worker.routes.append(route)
                generation, snapshot = worker.index
                if route == control.RING:
                    self.reply(200, json.dumps(worker.ring.to_json()).encode())
                elif route != control.INDEX or generation == 0:
                    self.reply(404, b"")
                elif query == f"have={generation}":
                    self.reply(304, b"")
                else:
                    self.reply(200, snapshot, generation)

            def reply(self, status: int, body: bytes, generation: int = 0) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header(control.GENERATION_HEADER, str(generation))
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler

    def close(self) -> None:
        """Stop listening and break every connection, as a killed worker does."""
        self._http.shutdown()
        self._http.server_close()
        self._break(self._listener)
        for connection in self._connections:
            self._break(connection)

    @staticmethod
    def _break(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def version_of(key: str, data: bytes, dataset: str = "uid") -> ObjectVersion:
    """The object version under which a test stores these bytes."""
    return ObjectVersion(dataset, "m", key, "v1", len(data))
