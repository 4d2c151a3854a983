"""Read ranges of objects: from the chunk's owner, else from the next owners, else from the store itself.

A failing worker costs latency, never an error, while another worker or the store has the bytes. Only when
nobody has them does the read fail, with the error that tells most: the store's own, if it was asked.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from forebay.flight import SingleFlight
from forebay.pool import ConnectionPool
from forebay.ring import RingHolder
from forebay_protocol import wire
from forebay_protocol.errors import (
    ForebayError,
    NotCached,
    ObjectChanged,
    ObjectMissing,
    WorkerUnavailable,
)
from forebay_protocol.keys import CHUNK_SIZE, ChunkKey, ObjectVersion, Span, block_aligned, chunk_pieces
from forebay_protocol.ring import Layout, Member, Ring

READ_BUDGET = 30.0
"""Seconds in which a read ends, one way or the other."""

MAX_WORKERS = 3
"""How many workers are asked for one range before the store is."""

_CANDIDATES = 16
"""How many members are looked at for those: more cannot all be failing while the ring is right."""

_log = logging.getLogger(__name__)


class Fallback(Protocol):
    """Where bytes come from when no worker gives them."""

    def read_into(self, one: ObjectVersion, span: Span, buffer: memoryview) -> None:
        """Fill the buffer with these bytes of exactly this version, or raise a ForebayError."""


@dataclass(slots=True)
class Counters:
    """What this reader did since it began; bytes by where they came from."""

    worker_bytes: int = 0
    direct_bytes: int = 0
    worker_failures: int = 0


def preferred(ring: Ring, chunk: ChunkKey, node: str) -> tuple[Member, ...]:
    """The members in the order in which to ask: by rank, but where every worker holds all, this node's own first."""
    if ring.layout is Layout.REPLICATED and node:
        return tuple(sorted(ring.ranked(chunk), key=lambda member: member.node != node))
    return ring.ranked(chunk, _CANDIDATES)


def worth_asking(
    ranked: tuple[Member, ...], cooling: Callable[[Member], bool], *, has_fallback: bool
) -> tuple[Member, ...]:
    """The members to ask, in order: those in good health; failing ones only where there is nothing else to ask."""
    healthy = tuple(member for member in ranked if not cooling(member))
    return (healthy if healthy or has_fallback else ranked)[:MAX_WORKERS]


class ChunkReader:
    """Reads verified bytes of object versions. Thread-safe."""

    def __init__(
        self, ring: RingHolder, pool: ConnectionPool, fallback: Fallback | None = None, *, node: str = ""
    ) -> None:
        """Without a fallback only the workers are asked. ``node`` is where this process runs."""
        self._node = node
        self.counters = Counters()
        self._ring = ring
        self._pool = pool
        self._fallback = fallback
        self._counting = threading.Lock()
        self._flights: SingleFlight[memoryview] = SingleFlight()

    def read(self, one: ObjectVersion, offset: int, length: int) -> bytes | memoryview:
        """``length`` bytes from ``offset``, fewer at the object's end; concurrent equal reads share one transfer."""
        wanted = max(0, min(length, one.size - offset))
        pieces = [self._piece(one, span) for _, span in chunk_pieces(offset, wanted)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, one: ObjectVersion, span: Span) -> memoryview:
        aligned = block_aligned(span.offset, span.length, one.size)

        def transfer() -> memoryview:
            buffer = bytearray(aligned.length)
            self.read_into(one, aligned, memoryview(buffer))
            return memoryview(buffer).toreadonly()

        try:
            whole = self._flights.do((one.object_id, aligned), transfer, READ_BUDGET)
        except TimeoutError as error:
            raise WorkerUnavailable("another reader of the same bytes got no answer in time") from error
        start = span.offset - aligned.offset
        return whole[start : start + span.length]

    def read_into(self, one: ObjectVersion, span: Span, buffer: memoryview) -> None:
        """Fill the buffer with a block-aligned span that lies within one chunk."""
        deadline = time.monotonic() + READ_BUDGET
        chunk = ChunkKey(one.object_id, span.offset // CHUNK_SIZE)
        request = wire.ReadRequest(0, one, span.offset, span.length)
        problem: ForebayError | None = None
        ranked = preferred(self._ring.current, chunk, self._node)
        for member in worth_asking(ranked, self._pool.cooling, has_fallback=self._fallback is not None):
            try:
                self._ask(member, request, buffer, deadline)
            except (ObjectChanged, ObjectMissing):
                raise
            except ForebayError as error:
                problem = error
                self._note_failure(member, error)
            else:
                return
            if time.monotonic() >= deadline:
                break
        self._directly(one, span, buffer, problem)

    def _ask(self, member: Member, request: wire.ReadRequest, buffer: memoryview, deadline: float) -> None:
        # Half of what is left at most, so that one silent worker leaves time for the others.
        now = time.monotonic()
        self._pool.read_into(member, request, buffer, deadline=now + max(1.0, (deadline - now) / 2))
        with self._counting:
            self.counters.worker_bytes += request.length

    def _note_failure(self, member: Member, error: ForebayError) -> None:
        with self._counting:
            self.counters.worker_failures += 1
        if not isinstance(error, NotCached):
            _log.info("worker %s failed a read: %s", member.id, error)
            self._ring.want()

    def _directly(self, one: ObjectVersion, span: Span, buffer: memoryview, problem: ForebayError | None) -> None:
        if self._fallback is None:
            raise problem or WorkerUnavailable("no worker is known, and the store may not be asked directly")
        self._fallback.read_into(one, span, buffer)
        with self._counting:
            self.counters.direct_bytes += span.length
