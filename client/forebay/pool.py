"""Connections to workers, kept for the next read, and the memory of which workers fail.

A worker that failed is left alone for a while that doubles up to ``MAX_COOL_DOWN``; the first success
forgets it. Callers look at ``cooling`` to ask others first.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from forebay.connection import DEFAULT_TIMEOUTS, Timeouts, TokenProvider, WorkerConnection
from forebay_protocol import wire
from forebay_protocol.errors import ForebayError, Overloaded, Unauthorized, WorkerUnavailable
from forebay_protocol.ring import Member

COOL_DOWN = 1.0
MAX_COOL_DOWN = 15.0
"""Seconds for which a failed worker is avoided: after the first failure, and at most."""

MAX_IDLE = 60.0
"""Seconds after which an unused connection is not used again."""

Endpoint = tuple[str, int]
Observer = Callable[[Member, wire.ResponseHead], None]
"""Told of every response, so that newer epochs and generations are noticed."""


def cool_down(failures: int) -> float:
    """How long to leave a worker alone after so many failures in a row."""
    return float(min(COOL_DOWN * 2 ** (min(failures, 16) - 1), MAX_COOL_DOWN)) if failures else 0.0


@dataclass(slots=True)
class _Slot:
    """What the pool knows of one endpoint."""

    limit: threading.BoundedSemaphore
    idle: list[tuple[float, WorkerConnection]] = field(default_factory=list)
    failures: int = 0
    avoid_until: float = 0.0


class ConnectionPool:
    """Reads from members over pooled connections; at most ``limit`` at once for each member. Thread-safe."""

    def __init__(
        self,
        token_provider: TokenProvider,
        *,
        limit: int = 8,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        observer: Observer | None = None,
    ) -> None:
        """``observer`` is told of the head of every response."""
        self._token_provider = token_provider
        self._timeouts = timeouts
        self._observer = observer
        self._lock = threading.Lock()
        self._slots: dict[Endpoint, _Slot] = defaultdict(lambda: _Slot(threading.BoundedSemaphore(limit)))

    def cooling(self, member: Member) -> bool:
        """Whether the member failed so lately that others should be asked first."""
        with self._lock:
            slot = self._slots.get((member.address, member.data_port))
            return slot is not None and time.monotonic() < slot.avoid_until

    def read_into(
        self, member: Member, request: wire.ReadRequest, buffer: memoryview, *, deadline: float | None = None
    ) -> wire.ResponseHead:
        """One read from one member; see ``WorkerConnection.read_into``.

        A kept connection that turns out to be broken is replaced by a new one, once.
        """
        slot = self._slot(member)
        patience = self._timeouts.answer if deadline is None else max(0.0, deadline - time.monotonic())
        if not slot.limit.acquire(timeout=min(patience, self._timeouts.answer)):
            raise Overloaded(f"all connections to worker {member.id} are busy")
        try:
            kept = self._take(slot)
            if kept is not None:
                try:
                    return self._ask(slot, member, kept, request, buffer, deadline)
                except (WorkerUnavailable, Unauthorized):
                    # Broken, or the token that it began with has expired: a new one says whether that helps.
                    if deadline is not None and time.monotonic() > deadline:
                        raise
            return self._ask(slot, member, self._connect(slot, member), request, buffer, deadline)
        finally:
            slot.limit.release()

    def _slot(self, member: Member) -> _Slot:
        with self._lock:
            return self._slots[member.address, member.data_port]

    def _take(self, slot: _Slot) -> WorkerConnection | None:
        with self._lock:
            while slot.idle:
                since, connection = slot.idle.pop()
                if time.monotonic() - since < MAX_IDLE:
                    return connection
                connection.close()
        return None

    def _connect(self, slot: _Slot, member: Member) -> WorkerConnection:
        try:
            return WorkerConnection(member.address, member.data_port, self._token_provider, self._timeouts)
        except (WorkerUnavailable, Unauthorized):
            self._failed(slot)
            raise

    def _ask(
        self, slot: _Slot, member: Member, connection: WorkerConnection, request: wire.ReadRequest,
        buffer: memoryview, deadline: float | None,
    ) -> wire.ResponseHead:  # fmt: skip
        connection.last_head = None
        try:
            head = connection.read_into(request, buffer, deadline=deadline)
        except ForebayError:
            if connection.closed:
                self._failed(slot)
            raise
        else:
            with self._lock:
                slot.failures, slot.avoid_until = 0, 0.0
            return head
        finally:
            if connection.last_head is not None and self._observer is not None:
                self._observer(member, connection.last_head)
            if not connection.closed:
                with self._lock:
                    slot.idle.append((time.monotonic(), connection))

    def _failed(self, slot: _Slot) -> None:
        with self._lock:
            slot.failures += 1
            slot.avoid_until = time.monotonic() + cool_down(slot.failures)

    def retain(self, members: tuple[Member, ...]) -> None:
        """Forget the workers that are not among these: close their idle connections."""
        known = {(member.address, member.data_port) for member in members}
        with self._lock:
            gone = [self._slots.pop(endpoint) for endpoint in list(self._slots) if endpoint not in known]
        for slot in gone:
            for _, connection in slot.idle:
                connection.close()

    def close(self) -> None:
        """Close all idle connections."""
        self.retain(())
