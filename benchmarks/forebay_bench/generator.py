"""One load generator for every protocol: send a prepared request, take a response of known length, throw it away.

It runs as a process of its own and discards payload in the kernel (``MSG_TRUNC``), so that the server is what is
measured; what it costs is the same for every server.
"""

import json
import multiprocessing
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

_DISCARD = socket.MSG_TRUNC | socket.MSG_WAITALL
_BLOCKING_FROM = 64 * 1024
"""Responses from that size on are awaited by a thread per connection, smaller ones by one event loop."""

_WARM_UP = 0.3


@dataclass(frozen=True, slots=True)
class Call:
    """A request and the length of its whole response."""

    request: bytes
    response: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server: where it listens, and how a connection begins (hello and length of the answer to it)."""

    address: str
    port: int
    hello: bytes = b""
    welcome: int = 0

    def connect(self) -> socket.socket:
        """A connection that is ready for calls."""
        stream = socket.create_connection((self.address, self.port), timeout=30)
        stream.settimeout(None)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.hello:
            stream.sendall(self.hello)
            _discard(stream, self.welcome, memoryview(bytearray(max(self.welcome, 1))))
        return stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a run reached: calls per second, over how long with the warm-up, and the generator's share of one core."""

    calls: float
    seconds: float
    generator_cpu: float


def run(target: Target, calls: Sequence[Call], connections: int, seconds: float) -> Rate:
    """Keep every connection busy with one call after the other for so long, from another process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, target, list(calls), connections, seconds))
    process.start()
    theirs.close()
    try:
        raw = json.loads(ours.recv_bytes())
    finally:
        process.join()
    return Rate(calls=raw["calls"], seconds=raw["seconds"], generator_cpu=raw["cpu"])


def _child(pipe: Connection, target: Target, calls: list[Call], connections: int, seconds: float) -> None:
    streams = [target.connect() for _ in range(connections)]
    drive = _threads if calls[0].response >= _BLOCKING_FROM else _loop
    drive(streams, calls, time.perf_counter() + _WARM_UP)
    start, cpu = time.perf_counter(), time.process_time()
    count = drive(streams, calls, start + seconds)
    took = time.perf_counter() - start
    pipe.send_bytes(
        json.dumps(
            {"calls": count / took, "seconds": took + _WARM_UP, "cpu": (time.process_time() - cpu) / took}
        ).encode()
    )


def _discard(stream: socket.socket, length: int, scratch: memoryview) -> None:
    while length:
        count = stream.recv_into(scratch, min(length, len(scratch)), _DISCARD)
        if not count:
            raise ConnectionError("the server closed the connection")
        length -= count


def _threads(streams: Sequence[socket.socket], calls: Sequence[Call], end: float) -> int:
    counts = [0] * len(streams)
    failed: list[Exception] = []

    def drive(number: int) -> None:
        stream, position = streams[number], number * 7919
        scratch = memoryview(bytearray(max(call.response for call in calls)))
        try:
            while time.perf_counter() < end:
                call = calls[position % len(calls)]
                position += 1
                stream.sendall(call.request)
                _discard(stream, call.response, scratch)
                counts[number] += 1
        except OSError as error:
            failed.append(error)

    _in_threads(drive, len(streams))
    if failed:
        raise failed[0]
    return sum(counts)


def _in_threads(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _loop(streams: Sequence[socket.socket], calls: Sequence[Call], end: float) -> int:
    """One thread, level-triggered epoll; a connection's next call goes out as soon as its response is complete."""
    poll = select.epoll()
    scratch = memoryview(bytearray(max(call.response for call in calls)))
    by_fd = {stream.fileno(): stream for stream in streams}
    left: dict[int, int] = {}
    count = position = 0
    for fd, stream in by_fd.items():
        poll.register(fd, select.EPOLLIN)
        call = calls[position % len(calls)]
        position += 7919
        stream.send(call.request)
        left[fd] = call.response
    total = len(calls)
    while left:
        for fd, _ in poll.poll(5):
            stream = by_fd[fd]
            got = stream.recv_into(scratch, left[fd], socket.MSG_TRUNC | socket.MSG_DONTWAIT)
            if not got:
                raise ConnectionError("the server closed the connection")
            left[fd] -= got
            if left[fd]:
                continue
            count += 1
            if time.perf_counter() < end:
                call = calls[position % total]
                position += 1
                stream.send(call.request)
                left[fd] = call.response
            else:
                del left[fd]
    poll.close()
    return count
