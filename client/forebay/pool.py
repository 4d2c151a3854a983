"""Connections to workers, kept for the next read, and the memory of which workers fail or are slow (see `health`)."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from forebay.connection import DEFAULT_TIMEOUTS, Timeouts, TokenProvider, Watch, WorkerConnection
from forebay.health import Health
from forebay.tls import TlsProvider, plain
from forebay_protocol import wire
from forebay_protocol.errors import ForebayError, Overloaded, Unauthorized, WorkerUnavailable
from forebay_protocol.ring import Member

MAX_IDLE = 60.0
"""Seconds after which an unused connection is not used again."""

_HURRIED_CONNECT = 0.5
"""Seconds to connect when there is another place to ask."""

_LOOK = 0.02
"""Seconds between looks whether a read that waits for a connection is late or over."""

Endpoint = tuple[str, int]
Observer = Callable[[Member, wire.ResponseHead], None]
"""Told of every response, so that newer epochs and generations are noticed."""


@dataclass(slots=True)
class _Slot:
    """What the pool knows of one endpoint."""

    limit: threading.BoundedSemaphore
    idle: list[tuple[float, WorkerConnection]] = field(default_factory=list)
    health: Health = field(default_factory=Health)
    forgotten: bool = False


class ConnectionPool:
    """Reads from members over pooled connections; at most ``limit`` at once for each member. Thread-safe."""

    def __init__(
        self,
        token_provider: TokenProvider,
        *,
        limit: int = 8,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        observer: Observer | None = None,
        tls: TlsProvider = plain,
    ) -> None:
        """``observer`` is told of the head of every response."""
        self._token_provider = token_provider
        self._timeouts = timeouts
        self._observer = observer
        self._tls = tls
        self._lock = threading.Lock()
        self._slots: dict[Endpoint, _Slot] = defaultdict(lambda: _Slot(threading.BoundedSemaphore(limit)))

    def avoided(self, member: Member) -> bool:
        """Whether the member fails or is slow, so that others should be asked first."""
        with self._lock:
            slot = self._slots.get((member.address, member.data_port))
            return slot is not None and slot.health.left_alone(time.monotonic())

    def usable(self, member: Member, request: wire.ReadRequest, patience: float) -> bool:
        """Whether to ask the member. If not, and it is time, this request is sent to it in the background as a probe.

        The probe must be answered within ``patience`` seconds; it makes the worker fetch nothing.
        """
        slot = self._slot(member)
        with self._lock:
            now = time.monotonic()
            if not slot.health.left_alone(now):
                return True
            if not slot.health.wants_probe(now):
                return False
            slot.health.probing = True
        probe = replace(request, flags=wire.Flag.CACHED_ONLY)
        arguments = (slot, member, probe, patience)
        threading.Thread(target=self._probe, args=arguments, name="probe", daemon=True).start()
        return False

    def _probe(self, slot: _Slot, member: Member, request: wire.ReadRequest, patience: float) -> None:
        connection: WorkerConnection | None = None
        try:
            # On a stream of its own: those of the pool may all wait for a slow worker.
            connection = self._connect(slot, member, self._timeouts)
            buffer = memoryview(bytearray(request.length))
            self._ask(slot, member, connection, request, buffer, time.monotonic() + patience, None)
        except ForebayError:
            if connection is not None and not connection.closed:
                with self._lock:
                    slot.health.passed()
        finally:
            with self._lock:
                slot.health.probing = False

    def read_into(
        self,
        member: Member,
        request: wire.ReadRequest,
        buffer: memoryview,
        *,
        deadline: float | None = None,
        watch: Watch | None = None,
    ) -> wire.ResponseHead:
        """One read from one member; see ``WorkerConnection.read_into``.

        A kept connection that turns out to be broken is replaced by a new one, once.
        """
        slot = self._slot(member)
        self._enter(slot, member, deadline, watch)
        timeouts = self._timeouts
        if watch is not None:
            timeouts = replace(timeouts, connect=min(timeouts.connect, _HURRIED_CONNECT))
        try:
            kept = self._take(slot)
            if kept is not None:
                try:
                    return self._ask(slot, member, kept, request, buffer, deadline, watch)
                except (WorkerUnavailable, Unauthorized):
                    # Broken, or the token that it began with has expired: a new one says whether that helps.
                    if (watch is not None and watch.over) or (deadline is not None and time.monotonic() > deadline):
                        raise
            fresh = self._connect(slot, member, timeouts)
            return self._ask(slot, member, fresh, request, buffer, deadline, watch)
        finally:
            slot.limit.release()

    def _enter(self, slot: _Slot, member: Member, deadline: float | None, watch: Watch | None) -> None:
        """Wait until one more connection may be used."""
        end = time.monotonic() + self._timeouts.answer
        if deadline is not None:
            end = min(end, deadline)
        while not slot.limit.acquire(timeout=max(0.0, end - time.monotonic()) if watch is None else _LOOK):
            now = time.monotonic()
            if now >= end:
                raise Overloaded(f"all connections to worker {member.id} are busy")
            if watch is not None and watch.over:
                raise WorkerUnavailable("another place had the bytes first")
            if watch is not None and now >= watch.due:
                watch.late(0)

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

    def _connect(self, slot: _Slot, member: Member, timeouts: Timeouts) -> WorkerConnection:
        try:
            return WorkerConnection(member.address, member.data_port, self._token_provider, timeouts, self._tls())
        except Overloaded as error:
            # It takes no more connections; a request that it refuses says less: it may well have other chunks.
            with self._lock:
                slot.health.overloaded(time.monotonic(), error.retry_after or 0.0)
            raise
        except (WorkerUnavailable, Unauthorized):
            self._failed(slot, None)
            raise

    def _ask(
        self, slot: _Slot, member: Member, connection: WorkerConnection, request: wire.ReadRequest,
        buffer: memoryview, deadline: float | None, watch: Watch | None,
    ) -> wire.ResponseHead:  # fmt: skip
        connection.last_head = None
        try:
            head = connection.read_into(request, buffer, deadline=deadline, watch=watch)
        except ForebayError:
            if connection.closed:
                self._failed(slot, watch)
            raise
        else:
            if watch is None or not watch.was_late:
                with self._lock:
                    slot.health.good()
            return head
        finally:
            if connection.last_head is not None and self._observer is not None:
                self._observer(member, connection.last_head)
            if not connection.closed:
                self._put_back(slot, connection)

    def _put_back(self, slot: _Slot, connection: WorkerConnection) -> None:
        with self._lock:
            if not slot.forgotten:
                slot.idle.append((time.monotonic(), connection))
                return
        # The worker left the ring during the read: nobody would ever take this connection again.
        connection.close()

    def _failed(self, slot: _Slot, watch: Watch | None) -> None:
        now = time.monotonic()
        with self._lock:
            if watch is None or not watch.over:
                slot.health.failed(now)
            elif watch.lost:
                slot.health.lost(now)

    def retain(self, members: tuple[Member, ...]) -> None:
        """Forget the workers that are not among these: close their idle connections."""
        known = {(member.address, member.data_port) for member in members}
        with self._lock:
            gone = [self._slots.pop(endpoint) for endpoint in list(self._slots) if endpoint not in known]
            for slot in gone:
                slot.forgotten = True
        for slot in gone:
            for _, connection in slot.idle:
                connection.close()

    def close(self) -> None:
        """Close all idle connections."""
        self.retain(())
