"""Get a chunk: from a tier, from its owner, from a former owner, or from the store; once for all who ask.

Two kinds of flights exist so that workers never wait in a circle: an *origin* flight waits only for the
store (and for peers that answer at once from their tiers), a *pull* flight waits for the owner's origin
flight. They run on executors of their own.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from forebay.buffers import make_view
from forebay_protocol.errors import (
    ChecksumMismatch,
    NotCached,
    Overloaded,
    SourceError,
    Unauthorized,
    WorkerUnavailable,
)
from forebay_protocol.keys import CHUNK_SIZE, ChunkKey, ObjectVersion, Span
from forebay_protocol.ring import Member
from forebay_protocol.wire import Flag, ReadRequest
from forebay_worker.arrival import Arrival, Condition, Deliver, Part
from forebay_worker.budget import MemoryBudget, Slots
from forebay_worker.membership import Membership
from forebay_worker.metrics import Metrics
from forebay_worker.origin import Origin
from forebay_worker.peers import Peers
from forebay_worker.singleflight import Flights
from forebay_worker.store.checksums import block_sums
from forebay_worker.store.places import Place
from forebay_worker.store.tiered import ChunkStore, Judge, Lease

PATIENCE = 25.0
"""Seconds after which a reader who waits for a chunk gets an error."""

BUDGET_PATIENCE = 10.0
"""Seconds that a chunk waits for room in memory before its readers are told to go elsewhere."""

_OWNER_FAILED = (WorkerUnavailable, Overloaded, ChecksumMismatch, Unauthorized)


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests to the store at the same time, and bytes of chunks in memory."""

    fetchers: int
    fill_bytes: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A store together with who judges its chunks."""

    store: ChunkStore
    judge: Judge


@dataclass(frozen=True, slots=True)
class Threading:
    """What the shell's threads are made of: pools, by threads and name, and conditions."""

    executor: Callable[[int, str], Executor] = ThreadPoolExecutor
    condition: Callable[[], Condition] = threading.Condition


class ChunkShell:
    """Thread-safe; ``cache`` is replaced when the worker gets another dataset."""

    def __init__(
        self, membership: Membership, origin: Origin, peers: Peers, metrics: Metrics, limits: Limits,
        made_of: Threading = Threading(),
    ) -> None:  # fmt: skip
        """Nothing is cached before ``cache`` is set."""
        self._membership = membership
        self._origin = origin
        self._peers = peers
        self._metrics = metrics
        self._budget = MemoryBudget(limits.fill_bytes, metrics)
        self._flights = Flights(made_of.condition)
        self._slots = Slots(limits.fetchers, made_of.condition)
        self._fetch_executor = made_of.executor(limits.fetchers, "origin")
        self._pull_executor = made_of.executor(limits.fetchers, "pull")
        self.cache: Judged | None = None
        self.on_source_error: Callable[[SourceError], None] = lambda _: None
        self.on_kept: Callable[[ObjectVersion, int], None] = lambda _one, _number: None

    def get(
        self, request: ReadRequest, announce: Callable[[], None] = lambda: None, deliver: Deliver | None = None
    ) -> Lease | Part | None:
        """The chunk from its tier, or the range of it from wherever it is; the caller releases a lease.

        ``announce`` is called before the chunk is fetched. With ``deliver``, the caller's thread may fetch the chunk:
        then the range is handed to that as soon as it is there, and None is returned when all of the chunk is.
        """
        one, (number, within) = request.object, divmod(request.offset, CHUNK_SIZE)
        lease = self._lease(ChunkKey(one.object_id, number))
        if lease is not None:
            return lease
        if request.flags & Flag.CACHED_ONLY:
            raise NotCached("the chunk is not in this worker's tiers")
        announce()
        given: list[Part] = []
        try:
            arrival = None
            if deliver is not None:
                arrival = self._lead(request, number, Span(within, request.length), given, deliver)
            if given:
                return None
            return (arrival or self.fetch(one, number, request.flags)).part(within, request.length, PATIENCE)
        except SourceError as error:
            self.on_source_error(error)
            raise

    def _lead(
        self, request: ReadRequest, number: int, span: Span, given: list[Part], deliver: Deliver
    ) -> Arrival | None:
        """Fetch the chunk in this thread, if it comes from the store and nobody else does; None when it does not."""
        one = request.object
        owner, but = self._route(one, number, request.flags)
        if owner is not None or not self._slots.try_take():
            return None

        def first(part: Part) -> None:
            given.append(part)
            deliver(part)

        try:
            return self._flights.lead(
                ("origin", ChunkKey(one.object_id, number)), span, first,
                lambda arrival: self._fill(arrival, one, number, but),
            )  # fmt: skip
        finally:
            self._slots.give()

    def _route(self, one: ObjectVersion, number: int, flags: Flag) -> tuple[Member | None, str]:
        """Whom to pull the chunk from (None: it is for us to fetch), and who is not to be asked for it."""
        owner = self._membership.owner(ChunkKey(one.object_id, number))
        if owner is None or owner.id == self._membership.id or flags & Flag.PEER:
            return None, ""
        if flags & Flag.INSTEAD or not self._peers.usable(owner, one, number):
            return None, owner.id
        return owner, ""

    def at_hand(self, one: ObjectVersion, number: int) -> Lease | None:
        """The chunk if it is in a tier and verified already; the caller releases the lease."""
        cache = self.cache
        return None if cache is None else cache.store.lease(ChunkKey(one.object_id, number), verify=False)

    def awaited(self, one: ObjectVersion, number: int, reader: str) -> None:
        """A reader, told apart by that name, waits for a chunk."""
        cache = self.cache
        if cache is not None:
            cache.store.awaited(ChunkKey(one.object_id, number), reader)

    def lease_again(self, place: Place) -> Lease | None:
        """The chunk at a place where it was found before; None when it is not there any more. Told by ``touch``."""
        cache = self.cache
        return None if cache is None else cache.store.lease_again(place)

    def touch(self, places: list[Place]) -> None:
        """Readers have read there, once each."""
        cache = self.cache
        if cache is not None:
            cache.store.touch(places)

    def _lease(self, key: ChunkKey) -> Lease | None:
        cache = self.cache
        return None if cache is None else cache.store.lease(key)

    def fetch(self, one: ObjectVersion, number: int, flags: Flag = Flag.NONE) -> Arrival:
        """Begin to fetch a chunk, or join who already does."""
        owner, but = self._route(one, number, flags)
        if owner is None:
            return self._fly_to_origin(one, number, but=but)
        key = ChunkKey(one.object_id, number)
        return self._flights.start(
            ("pull", key), self._pull_executor, lambda arrival: self._pull(arrival, owner, one, number)
        )

    def _fly_to_origin(self, one: ObjectVersion, number: int, *, but: str = "") -> Arrival:
        return self._flights.start(
            ("origin", ChunkKey(one.object_id, number)),
            self._fetch_executor,
            lambda arrival: self._fill_in_turn(arrival, one, number, but),
        )

    def _fill_in_turn(self, arrival: Arrival, one: ObjectVersion, number: int, but: str) -> None:
        """Wait for those who fetch in threads of their own: together with us they are no more than may be."""
        self._slots.take()
        try:
            self._fill(arrival, one, number, but)
        finally:
            self._slots.give()

    def _pull(self, arrival: Arrival, owner: Member, one: ObjectVersion, number: int) -> None:
        start = time.monotonic()
        if self._ask_owner(arrival, owner, one, number, start):
            return
        instead = self._fly_to_origin(one, number)
        arrival.follow(instead)
        instead.wait(PATIENCE)

    def _ask_owner(self, arrival: Arrival, owner: Member, one: ObjectVersion, number: int, start: float) -> bool:
        """Whether the owner gave the chunk; if not, the room in memory is free again when this returns."""
        try:
            with self._room(arrival, one, number) as buffer:
                arrival.begin(buffer, "peer")
                self._peers.pull(owner, one, number, buffer, arrival.arrived)
                self._finish(one, number, arrival, buffer, start, keep=self._membership.replicated)
        except _OWNER_FAILED:
            return False
        return True

    def _fill(self, arrival: Arrival, one: ObjectVersion, number: int, but: str) -> None:
        start = time.monotonic()
        with self._room(arrival, one, number) as buffer:
            arrival.begin(buffer, "tier")
            if self._arrived_meanwhile(one, number, buffer):
                arrival.arrived(len(buffer))
                return
            arrival.begin(buffer, "peer")
            if self._peers.ask_former_owners(one, number, buffer, but=but):
                arrival.arrived(len(buffer))
            else:
                arrival.begin(buffer, "store")
                self._origin.read_into(one, one.chunk_span(number).offset, buffer, arrival.arrived)
            self._finish(one, number, arrival, buffer, start, keep=True)

    def _arrived_meanwhile(self, one: ObjectVersion, number: int, buffer: memoryview) -> bool:
        """Whether a flight has brought the chunk between our reader's look and the start of this flight."""
        lease = self._lease(ChunkKey(one.object_id, number))
        if lease is None:
            return False
        try:
            # Read by us rather than sent, so nobody after us would notice that it changed on the disk.
            return _filled(lease, buffer) and block_sums(buffer) == lease.sums
        finally:
            lease.release()

    @contextmanager
    def _room(self, arrival: Arrival, one: ObjectVersion, number: int) -> Iterator[memoryview]:
        """Room for a chunk, given back to the budget when the last one who holds it lets it go.

        After an error that is here: the error's traceback would hold it for as long as somebody keeps the error.
        """
        length = one.chunk_span(number).length
        self._budget.take(length, BUDGET_PATIENCE)
        view = make_view(length, partial(self._budget.give, length))
        try:
            yield view
        except BaseException:
            arrival.withdraw()
            view.release()
            raise

    def _finish(
        self, one: ObjectVersion, number: int, arrival: Arrival, data: memoryview, start: float, *, keep: bool
    ) -> None:
        """Keep the chunk if it is to be kept, and count it."""
        cache, kept = self.cache, False
        if keep and cache is not None and cache.store.dataset == one.dataset:
            kept = cache.store.put(one, number, data, arrival.sums, cache.judge)
        if kept:
            self.on_kept(one, number)
        self._metrics.fills.labels(arrival.source, "kept" if kept else "passed_on").inc()
        self._metrics.fill_seconds.labels(arrival.source).observe(time.monotonic() - start)

    def close(self) -> None:
        """End without waiting for what is under way."""
        self._fetch_executor.shutdown(wait=False, cancel_futures=True)
        self._pull_executor.shutdown(wait=False, cancel_futures=True)


def _filled(lease: Lease, buffer: memoryview) -> bool:
    """Fill the buffer with the whole chunk; whether all of it was there."""
    if lease.plain:
        return os.preadv(lease.fd, [buffer], lease.offset) == len(buffer)
    data = lease.read(0, lease.length)
    buffer[: len(data)] = data
    return len(data) == len(buffer)
