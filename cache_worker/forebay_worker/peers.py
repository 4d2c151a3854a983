"""Chunks from other workers: always pulled, always verified on arrival."""

import threading

import structlog

from forebay.connection import Timeouts
from forebay.pace import Pace
from forebay.pool import ConnectionPool
from forebay.race import Attempt
from forebay.source.base import Arrived
from forebay.tls import TlsProvider
from forebay_protocol.errors import ForebayError, WorkerUnavailable
from forebay_protocol.keys import BLOCK_SIZE, ChunkKey, ObjectVersion
from forebay_protocol.ring import Member
from forebay_protocol.wire import Flag, ReadRequest
from forebay_worker.access import AccessWatcher
from forebay_worker.membership import Membership
from forebay_worker.metrics import Metrics

FORMER_OWNERS = 2
"""How many others are asked for a chunk that may have been theirs."""

_TIMEOUTS = Timeouts(connect=1.0, answer=20.0)

_FIRST, _PIECE = 4 * BLOCK_SIZE, 16 * BLOCK_SIZE
"""What a chunk is pulled in where its owner still fetches it."""

_LEAST_ANSWER, _LEAST_FETCH = 2.0, 10.0
"""Seconds that a peer always gets: whoever is given up for the store costs the store a request."""

_log = structlog.get_logger()


def _give_up(attempt: Attempt) -> None:
    attempt.stop(lost=True)
    raise WorkerUnavailable("the other worker is slow; the store is asked instead")


class Peers:
    """The other workers of the ring. Thread-safe."""

    def __init__(self, membership: Membership, access: AccessWatcher, metrics: Metrics, tls: TlsProvider) -> None:
        """Connections are made when they are needed."""
        self._membership = membership
        self._metrics = metrics
        self._pool = ConnectionPool(access.token, limit=16, timeouts=_TIMEOUTS, tls=tls)
        self._pace = Pace(_LEAST_ANSWER, _LEAST_FETCH)
        self._lock = threading.Lock()
        self.bytes = 0
        membership.listen(lambda ring: self._pool.retain(ring.members))

    def pull(self, owner: Member, one: ObjectVersion, number: int, buffer: memoryview, arrived: Arrived) -> None:
        """A whole chunk from its owner, who fetches it if need be; ``arrived`` is told on the way.

        Its beginning is asked for first, and then all the rest, unless the owner has to fetch that: then the rest in
        pieces, each of which comes as soon as the owner has it.
        """
        position, piece = 0, _FIRST
        while position < len(buffer):
            end = min(position + piece, len(buffer))
            flags = Flag.PEER | Flag.ANNOUNCE
            fetching = self._read(owner, one, number, position, buffer[position:end], flags)
            position, piece = end, _PIECE if fetching else len(buffer)
            arrived(position)

    def usable(self, member: Member, one: ObjectVersion, number: int) -> bool:
        """Whether asking the member for this chunk is worth while: it was neither failing nor slow lately."""
        span = one.chunk_span(number)
        request = ReadRequest(0, one, span.offset, span.length, Flag.PEER)
        return self._pool.usable(member, request, self._pace.allowed(span.length))

    def ask_former_owners(self, one: ObjectVersion, number: int, buffer: memoryview, *, but: str = "") -> bool:
        """Fill the buffer from another worker (but that one) that still has the chunk; whether one had it."""
        others = self._membership.others(ChunkKey(one.object_id, number))
        for member in others[:FORMER_OWNERS]:
            if member.id == but or not self.usable(member, one, number):
                continue
            try:
                self._read(member, one, number, 0, buffer, Flag.PEER | Flag.CACHED_ONLY)
            except ForebayError as error:
                _log.debug("peer has no chunk", peer=member.id, reason=error.reason)
            else:
                return True
        return False

    def _read(
        self, member: Member, one: ObjectVersion, number: int, within: int, buffer: memoryview, flags: Flag
    ) -> bool:
        """Fill the buffer from ``within`` a chunk; whether the other worker had to fetch that first."""
        offset = one.chunk_span(number).offset + within
        attempt = Attempt(self._pace, len(buffer), _give_up)
        self._pool.read_into(member, ReadRequest(0, one, offset, len(buffer), flags), buffer, watch=attempt)
        attempt.succeeded()
        self._metrics.peer_bytes.inc(len(buffer))
        with self._lock:
            self.bytes += len(buffer)
        return attempt.fetched

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
