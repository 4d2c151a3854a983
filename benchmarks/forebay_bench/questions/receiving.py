"""Our client reading whole chunks with checksums verified, beside a plain socket: sendfile there, recv_into here."""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from forebay.connection import WorkerConnection
from forebay_bench.results import Row, compared
from forebay_bench.runs import interleaved
from forebay_protocol.keys import CHUNK_SIZE, ObjectVersion
from forebay_protocol.wire import ReadRequest
from testkit.progress import Progress
from testkit.worker_processes import WorkerCluster

CONNECTIONS = 4
SECONDS = 2.0


def rows(file: Path, cluster: WorkerCluster, one: ObjectVersion, progress: Progress) -> list[Row]:
    """The row of the client."""
    worker = cluster.workers[0]

    def ours() -> float:
        def open_reader() -> "_Verified":
            return _Verified(worker.connect(), one)

        return _rate(open_reader)

    with _PlainServer(file) as plain:
        found = interleaved({"plain": lambda: _rate(plain.connect), "forebay": ours})
    row = compared(
        "client reading 4 MiB chunks, 4 connections, crc verified", "MB/s", found["forebay"],
        "plain sendfile to recv_into", found["plain"], ">= 0.8x",
    )  # fmt: skip
    progress.say(f"{row.name}: {row.ratio:.2f}x")
    return [row]


class Reader(Protocol):
    """Reads chunk after chunk."""

    def read(self, number: int) -> None:
        """One chunk."""

    def close(self) -> None:
        """The end."""


class _Verified:
    """Reads chunks from a worker."""

    def __init__(self, connection: WorkerConnection, one: ObjectVersion) -> None:
        self._connection, self._one = connection, one
        self._buffer = memoryview(bytearray(CHUNK_SIZE))

    def read(self, number: int) -> None:
        request = ReadRequest(0, self._one, number % self._one.chunk_count * CHUNK_SIZE, CHUNK_SIZE)
        self._connection.read_into(request, self._buffer)

    def close(self) -> None:
        self._connection.close()


class _Plain:
    """Reads chunks from the plain server: 8 bytes say which."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._buffer = memoryview(bytearray(CHUNK_SIZE))

    def read(self, number: int) -> None:
        self._stream.sendall(number.to_bytes(8, "big"))
        got = 0
        while got < CHUNK_SIZE:
            count = self._stream.recv_into(self._buffer[got:], 0, socket.MSG_WAITALL)
            if not count:
                raise ConnectionError("the plain server closed the connection")
            got += count

    def close(self) -> None:
        self._stream.close()


class _PlainServer:
    """A process with a thread per connection that sends chunks of one file and does nothing else."""

    def __init__(self, file: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._chunks = file.stat().st_size // CHUNK_SIZE
        self._pid = os.fork()
        if not self._pid:
            try:
                self._accept(os.open(file, os.O_RDONLY))
            finally:
                os._exit(0)

    def _accept(self, fd: int) -> None:
        while True:
            stream, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(stream, fd), daemon=True).start()

    def _serve(self, stream: socket.socket, fd: int) -> None:
        while request := stream.recv(8):
            position = int.from_bytes(request, "big") % self._chunks * CHUNK_SIZE
            end = position + CHUNK_SIZE
            while position < end:
                position += os.sendfile(stream.fileno(), fd, position, end - position)

    def connect(self) -> _Plain:
        return _Plain(socket.create_connection(self._listener.getsockname()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)
        self._listener.close()


def _rate(connect: Callable[[], Reader]) -> float:
    """MB/s over all connections, a thread each."""
    counts = [0] * CONNECTIONS
    end = time.perf_counter() + SECONDS

    def drive(number: int) -> None:
        reader, position = connect(), number * 7919
        while time.perf_counter() < end:
            reader.read(position)
            position += 1
            counts[number] += CHUNK_SIZE
        reader.close()

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(CONNECTIONS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start) / 1e6
