"""Read ranges of objects: from the chunk's owner, else from the next owners, else from the store itself.

A failing worker costs latency, never an error, while another worker or the store has the bytes; one that is late is
raced by the next place (see `race`). Only when nobody has the bytes does the read fail, with the error that tells most:
the store's own, if it was asked.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from forebay.buffers import make_view
from forebay.flight import SingleFlight
from forebay.pace import Pace
from forebay.pool import ConnectionPool
from forebay.race import FINAL, Allowance, Attempt, Place, Race
from forebay.ring import RingHolder
from forebay_protocol import wire
from forebay_protocol.errors import ForebayError, NotCached, WorkerUnavailable
from forebay_protocol.keys import CHUNK_SIZE, ChunkKey, ObjectVersion, Span, block_aligned, chunk_pieces
from forebay_protocol.ring import Layout, Member, Ring
from forebay_protocol.wire import Flag

READ_BUDGET = 27.0
"""Seconds in which a read ends, one way or the other; 30 are promised, and a busy machine needs some of them."""

_STORE_PATIENCE = 25.0
"""Seconds that a store's source may take for one read."""

MAX_WORKERS = 3
"""How many workers are asked for one range before the store is."""

_CANDIDATES = 16
"""How many members are looked at for those: more cannot all be failing while the ring is right."""

_log = logging.getLogger(__name__)


class Fallback(Protocol):
    """Where bytes come from when no worker gives them."""

    def read_into(self, one: ObjectVersion, span: Span, buffer: memoryview) -> None:
        """Fill the buffer with these bytes of exactly this version, or raise a ForebayError."""

    def spare(self, one: ObjectVersion) -> bool:
        """Whether it may be asked now beside others, without waiting for limits."""


@dataclass(slots=True)
class Counters:
    """What this reader did since it began; bytes by where they came from.

    ``hedges`` counts places that were asked beside one that was late, ``hedged_bytes`` what was asked of them.
    """

    worker_bytes: int = 0
    direct_bytes: int = 0
    worker_failures: int = 0
    hedges: int = 0
    hedged_bytes: int = 0


def preferred(ring: Ring, chunk: ChunkKey, node: str) -> tuple[Member, ...]:
    """The members in the order in which to ask: by rank, but where every worker holds all, this node's own first."""
    if ring.layout is Layout.REPLICATED and node:
        return tuple(sorted(ring.ranked(chunk), key=lambda member: member.node != node))
    return ring.ranked(chunk, _CANDIDATES)


def worth_asking(
    ranked: tuple[Member, ...], usable: Callable[[Member], bool], *, has_fallback: bool
) -> tuple[Member, ...]:
    """The members to ask, in order: those in good health; failing ones only where there is nothing else to ask."""
    healthy = tuple(islice(filter(usable, ranked), MAX_WORKERS))
    return healthy if healthy or has_fallback else ranked[:MAX_WORKERS]


@dataclass(frozen=True, slots=True)
class _Worker:
    """A worker, as a place to get one range from."""

    reader: "ChunkReader"
    member: Member
    request: wire.ReadRequest
    deadline: float

    def avoided(self) -> bool:
        return self.reader.pool.avoided(self.member)

    def outlasts(self, deadline: float) -> bool:
        return self.deadline > deadline

    def spare(self) -> bool:
        return True

    def read_into(self, buffer: memoryview, attempt: Attempt) -> None:
        # Half of what is left at most, so that one silent worker leaves time for the others.
        now = time.monotonic()
        deadline = now + max(1.0, (self.deadline - now) / 2)
        try:
            self.reader.pool.read_into(self.member, self.request, buffer, deadline=deadline, watch=attempt)
        except FINAL:
            raise
        except ForebayError as error:
            if not attempt.over:
                self.reader.note_failure(self.member, error)
            raise
        attempt.succeeded()
        self.reader.count(worker_bytes=self.request.length)


@dataclass(frozen=True, slots=True)
class _Store:
    """The object store itself, as a place to get one range from."""

    reader: "ChunkReader"
    fallback: Fallback
    request: wire.ReadRequest

    def avoided(self) -> bool:
        return False

    def outlasts(self, deadline: float) -> bool:
        return time.monotonic() + _STORE_PATIENCE > deadline

    def spare(self) -> bool:
        return self.fallback.spare(self.request.object)

    def read_into(self, buffer: memoryview, attempt: Attempt) -> None:  # noqa: ARG002 - it cannot be ended early
        self.fallback.read_into(self.request.object, Span(self.request.offset, self.request.length), buffer)
        self.reader.count(direct_bytes=self.request.length)


class ChunkReader:
    """Reads verified bytes of object versions. Thread-safe."""

    def __init__(
        self, ring: RingHolder, pool: ConnectionPool, fallback: Fallback | None = None, *, node: str = ""
    ) -> None:
        """Without a fallback only the workers are asked. ``node`` is where this process runs."""
        self._node = node
        self.counters = Counters()
        self._ring = ring
        self.pool = pool
        self._pace = Pace()
        self._allowance = Allowance()
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
            buffer = make_view(aligned.length)
            self.read_into(one, aligned, buffer)
            return buffer.toreadonly()

        try:
            whole = self._flights.do((one.object_id, aligned), transfer, READ_BUDGET)
        except TimeoutError as error:
            raise WorkerUnavailable("another reader of the same bytes got no answer in time") from error
        start = span.offset - aligned.offset
        return whole[start : start + span.length]

    def read_into(self, one: ObjectVersion, span: Span, buffer: memoryview) -> None:
        """Fill the buffer with a block-aligned span that lies within one chunk."""
        deadline = time.monotonic() + READ_BUDGET
        places = self._places(one, span, deadline)
        if not places:
            raise WorkerUnavailable("no worker is known, and the store may not be asked directly")
        self._allowance.earn()
        race = Race(places, span.length, self._pace, self._allowance, deadline)
        try:
            race.run(buffer)
        finally:
            if race.hedges:
                self.count(hedges=race.hedges, hedged_bytes=race.hedges * span.length)

    def _places(self, one: ObjectVersion, span: Span, deadline: float) -> list[Place]:
        """Whom to ask, best first."""
        request = wire.ReadRequest(0, one, span.offset, span.length, Flag.ANNOUNCE)
        instead = wire.ReadRequest(0, one, span.offset, span.length, Flag.ANNOUNCE | Flag.INSTEAD)
        ranked = preferred(self._ring.current, ChunkKey(one.object_id, span.offset // CHUNK_SIZE), self._node)
        patience = self._pace.allowed(span.length)

        def usable(member: Member) -> bool:
            # Probed with a chunk of its own: for any other it would not even have to read.
            own = member is ranked[0]
            return self.pool.usable(member, request, patience) if own else not self.pool.avoided(member)

        members = worth_asking(ranked, usable, has_fallback=self._fallback is not None)
        places: list[Place] = [
            _Worker(self, member, request if member is ranked[0] else instead, deadline) for member in members
        ]
        if self._fallback is not None:
            places.append(_Store(self, self._fallback, request))
        return places

    def note_failure(self, member: Member, error: ForebayError) -> None:
        """A worker did not give the bytes."""
        self.count(worker_failures=1)
        if not isinstance(error, NotCached):
            _log.info("worker %s failed a read: %s", member.id, error)
            self._ring.want()

    def count(self, **more: int) -> None:
        """Add to the counters."""
        with self._counting:
            for name, value in more.items():
                setattr(self.counters, name, getattr(self.counters, name) + value)
