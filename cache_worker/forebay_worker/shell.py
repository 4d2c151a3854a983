"""Get a chunk: from a tier, from its owner, from a former owner, or from the store; once for all who ask.

Two kinds of flights exist so that workers never wait in a circle: an *origin* flight waits only for the
store (and for peers that answer at once from their tiers), a *pull* flight waits for the owner's origin
flight. They run on executors of their own.
"""

import os
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass

from forebay.buffers import make_buffer
from forebay_protocol.errors import (
    ChecksumMismatch,
    NotCached,
    Overloaded,
    SourceError,
    SourceUnavailable,
    Unauthorized,
    WorkerUnavailable,
)
from forebay_protocol.keys import ChunkKey, ObjectVersion
from forebay_protocol.ring import Member
from forebay_protocol.wire import Flag
from forebay_worker.budget import MemoryBudget
from forebay_worker.membership import Membership
from forebay_worker.metrics import Metrics
from forebay_worker.origin import Origin
from forebay_worker.peers import Peers
from forebay_worker.singleflight import Flights
from forebay_worker.store.checksums import block_sums
from forebay_worker.store.tiered import ChunkStore, Judge, Lease

PATIENCE = 25.0
"""Seconds after which a reader who waits for a chunk gets an error."""

BUDGET_PATIENCE = 10.0
"""Seconds that a chunk waits for room in memory before its readers are told to go elsewhere."""

_OWNER_FAILED = (WorkerUnavailable, Overloaded, ChecksumMismatch, Unauthorized)


class Fetched:
    """A chunk in memory, with its checksums and where it came from."""

    __slots__ = ("data", "source", "sums")

    def __init__(self, data: memoryview, source: str) -> None:
        """Checksums are computed here, over exactly what will be kept and sent."""
        self.data = data
        self.source = source
        self.sums = block_sums(data)


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


class ChunkShell:
    """Thread-safe; ``cache`` is replaced when the worker gets another dataset."""

    def __init__(
        self, membership: Membership, origin: Origin, peers: Peers, metrics: Metrics, limits: Limits,
        executor: Callable[[int, str], Executor] = ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        """Nothing is cached before ``cache`` is set. ``executor`` makes the pools: (threads, name)."""
        self._membership = membership
        self._origin = origin
        self._peers = peers
        self._metrics = metrics
        self._budget = MemoryBudget(limits.fill_bytes, metrics)
        self._flights: Flights[Fetched] = Flights()
        self._fetch_executor = executor(limits.fetchers, "origin")
        self._pull_executor = executor(limits.fetchers, "pull")
        self.cache: Judged | None = None
        self.on_source_error: Callable[[SourceError], None] = lambda _: None
        self.on_kept: Callable[[ObjectVersion, int], None] = lambda _one, _number: None

    def get(
        self, one: ObjectVersion, number: int, flags: Flag, announce: Callable[[], None] = lambda: None
    ) -> Lease | Fetched:
        """The chunk, from wherever it is; the caller releases a lease. ``announce`` is called before it is fetched."""
        key = ChunkKey(one.object_id, number)
        lease = self._lease(key)
        if lease is not None:
            return lease
        if flags & Flag.CACHED_ONLY:
            raise NotCached("the chunk is not in this worker's tiers")
        announce()
        try:
            return self.fetch(one, number, flags).result(PATIENCE)
        except FutureTimeout:
            raise SourceUnavailable(f"the chunk did not arrive within {PATIENCE:.0f} s; try again") from None
        except CancelledError:
            raise WorkerUnavailable("this worker stops; ask another one") from None
        except SourceError as error:
            self.on_source_error(error)
            raise

    def at_hand(self, one: ObjectVersion, number: int) -> Lease | None:
        """The chunk if it is in a tier and verified already; the caller releases the lease."""
        cache = self.cache
        return None if cache is None else cache.store.lease(ChunkKey(one.object_id, number), verify=False)

    def awaited(self, one: ObjectVersion, number: int, reader: str) -> None:
        """A reader, told apart by that name, waits for a chunk."""
        cache = self.cache
        if cache is not None:
            cache.store.awaited(ChunkKey(one.object_id, number), reader)

    def _lease(self, key: ChunkKey) -> Lease | None:
        cache = self.cache
        return None if cache is None else cache.store.lease(key)

    def fetch(self, one: ObjectVersion, number: int, flags: Flag = Flag.NONE) -> Future[Fetched]:
        """Begin to fetch a chunk, or join who already does."""
        key = ChunkKey(one.object_id, number)
        owner = self._membership.owner(key)
        if owner is None or owner.id == self._membership.id or flags & Flag.PEER:
            return self._fly_to_origin(one, number)
        if flags & Flag.INSTEAD or not self._peers.usable(owner, one, number):
            return self._fly_to_origin(one, number, but=owner.id)
        return self._flights.start(("pull", key), self._pull_executor, lambda: self._pull(owner, one, number))

    def _fly_to_origin(self, one: ObjectVersion, number: int, *, but: str = "") -> Future[Fetched]:
        key = ChunkKey(one.object_id, number)
        return self._flights.start(("origin", key), self._fetch_executor, lambda: self._fill(one, number, but))

    def _pull(self, owner: Member, one: ObjectVersion, number: int) -> Fetched:
        start = time.monotonic()
        fetched = self._ask_owner(owner, one, number)
        if fetched is None:
            return self._fly_to_origin(one, number).result(PATIENCE)
        return self._finish(one, number, fetched, start, keep=self._membership.replicated)

    def _ask_owner(self, owner: Member, one: ObjectVersion, number: int) -> Fetched | None:
        """The chunk; None when the owner failed, so that the room in memory is free again by then."""
        with self._room(one, number) as buffer:
            try:
                self._peers.pull(owner, one, number, buffer)
            except _OWNER_FAILED:
                buffer.release()
                return None
            return Fetched(buffer, "peer")

    def _fill(self, one: ObjectVersion, number: int, but: str) -> Fetched:
        start = time.monotonic()
        with self._room(one, number) as buffer:
            if self._arrived_meanwhile(one, number, buffer):
                return Fetched(buffer, "tier")
            source = "peer"
            if not self._peers.ask_former_owners(one, number, buffer, but=but):
                source = "store"
                self._origin.read_into(one, one.chunk_span(number).offset, buffer)
            return self._finish(one, number, Fetched(buffer, source), start, keep=True)

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
    def _room(self, one: ObjectVersion, number: int) -> Iterator[memoryview]:
        """Room for a chunk, given back to the budget when the last one who holds it lets it go.

        After an error that is here: the error's traceback would hold it for as long as somebody keeps the error.
        """
        length = one.chunk_span(number).length
        self._budget.take(length, BUDGET_PATIENCE)
        buffer = make_buffer(length)
        weakref.finalize(buffer, self._budget.give, length).atexit = False
        view = memoryview(buffer)
        del buffer
        try:
            yield view
        except BaseException:
            view.release()
            raise

    def _finish(self, one: ObjectVersion, number: int, fetched: Fetched, start: float, *, keep: bool) -> Fetched:
        cache, kept = self.cache, False
        if keep and cache is not None and cache.store.dataset == one.dataset:
            kept = cache.store.put(one, number, fetched.data, fetched.sums, cache.judge)
        if kept:
            self.on_kept(one, number)
        self._metrics.fills.labels(fetched.source, "kept" if kept else "passed_on").inc()
        self._metrics.fill_seconds.labels(fetched.source).observe(time.monotonic() - start)
        return fetched

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
