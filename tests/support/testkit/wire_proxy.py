"""A proxy before one worker that knows the data protocol and breaks answers, seeded, at the level of its frames."""

import contextlib
import random
import socket
import struct
import threading
from dataclasses import replace
from enum import StrEnum
from typing import BinaryIO, Self

from forebay_protocol import wire
from forebay_protocol.ring import Member
from testkit.store_faults import Injected, Journal
from testkit.store_proxy import Ending, end

_SECONDS = 60.0
"""Longer than any party waits: the proxy itself never is the one who gives up."""


class WireFault(StrEnum):
    """One way in which an answer of a worker arrives wrong."""

    TRUNCATED = "wire: truncated"
    RESET = "wire: reset"
    FLIPPED_BIT = "wire: flipped bit"
    STALL = "wire: stall"
    DRIP = "wire: slow drip"
    WRONG_EPOCH = "wire: wrong epoch"
    OTHER_ANSWER = "wire: another request's answer"
    NOISE = "wire: noise"


class WireProxy:
    """Listens on a port of its own, before the data port of ``member``; nothing is broken until ``share`` is set."""

    def __init__(self, member: Member, seed: int, journal: Journal) -> None:
        """Several proxies may write one journal."""
        self.share = 0.0
        self.journal = journal
        self._behind = member
        self._seed = seed
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.member = replace(member, data_port=self._listener.getsockname()[1])
        """The worker as a ring names it whose traffic is to pass here."""
        threading.Thread(target=self._accept, name="wire-proxy", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(stream,), name="wire-proxy", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, EOFError, struct.error):
            client.settimeout(None)
            worker = socket.create_connection((self._behind.address, self._behind.data_port), timeout=_SECONDS)
            with worker, client.makefile("rb") as asked, worker.makefile("rb") as answered:
                hello = _exactly(asked, wire.HELLO.size)
                worker.sendall(hello + _exactly(asked, wire.HELLO.unpack(hello)[1]))
                client.sendall(b"".join(_frame(answered)))
                while True:
                    head = _exactly(asked, wire.REQUEST.size)
                    _, body, _, size, offset, length = wire.decode_request_head(head)
                    named = _exactly(asked, body)
                    worker.sendall(head + named)
                    key = wire.decode_object(named, size).key
                    frame = _frame(answered)
                    if wire.decode_response(frame[0]).status == wire.STATUS_FETCHING:
                        client.sendall(frame[0])
                        frame = _frame(answered)
                    if not self._answer(client, frame, key, f"{offset}+{length}"):
                        return

    def _answer(self, client: socket.socket, frame: tuple[bytes, bytes, bytes], key: str, place: str) -> bool:
        """Hand the answer on, or break it; whether the connection goes on."""
        dice = random.Random(f"{self._seed}|{self._behind.id}|{key}|{place}|{self.journal.again(key, place)}")
        if dice.random() >= self.share:
            client.sendall(b"".join(frame))
            return True
        head, sums, payload = frame
        kind = dice.choice([one for one in WireFault if payload or one is not WireFault.FLIPPED_BIT])
        self.journal.note(Injected(kind, key, f"{self._behind.id} {place}"))
        whole = bytearray(head + sums + payload)
        match kind:
            case WireFault.FLIPPED_BIT:
                # Of the checksums or of the bytes: either must not pass.
                whole[dice.randrange(len(head), len(whole))] ^= 1 << dice.randrange(8)
            case WireFault.WRONG_EPOCH:
                known = wire.decode_response(head)
                whole[: len(head)] = wire.encode_response(replace(known, epoch=dice.choice([0, known.epoch + 1000])))
            case WireFault.OTHER_ANSWER:
                known = wire.decode_response(head)
                whole[: len(head)] = wire.encode_response(replace(known, id=known.id ^ 1))
            case WireFault.NOISE:
                whole[:] = dice.randbytes(len(whole))
            case _:
                cut = dice.randrange(len(whole))
                client.sendall(whole[:cut])
                end(client, _ENDINGS.get(kind, Ending.CLOSE), bytes(whole[cut:]))
                return False
        client.sendall(whole)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


_ENDINGS = {WireFault.RESET: Ending.RESET, WireFault.STALL: Ending.STALL, WireFault.DRIP: Ending.DRIP}


def _exactly(stream: BinaryIO, count: int) -> bytes:
    raw = stream.read(count)
    if len(raw) < count:
        raise EOFError
    return raw


def _frame(stream: BinaryIO) -> tuple[bytes, bytes, bytes]:
    """One answer: head, checksums, payload."""
    raw = _exactly(stream, wire.RESPONSE.size)
    head = wire.decode_response(raw)
    return raw, _exactly(stream, 4 * head.blocks), _exactly(stream, head.length)
