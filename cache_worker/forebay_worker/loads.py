"""Loads: fetch what a request selects, as far as this worker owns it, and tell how much of it is here.

A load follows the newest index generation and ring for as long as it is known, so that all workers come to
report the same selection. What vanishes later lowers the progress; it is fetched again only with the next
plan. Requests survive restarts.
"""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from forebay_protocol.control import LoadProgress, LoadRequest, LoadState, Problem
from forebay_protocol.errors import ForebayError, InvalidRequest
from forebay_protocol.keys import ChunkKey
from forebay_worker.arrival import Arrival
from forebay_worker.core.load import LoadPlan, PlannedChunk, Presence, look, make_plan, what_fits
from forebay_worker.files import read_document, write_document
from forebay_worker.index.keeper import IndexKeeper
from forebay_worker.membership import Membership
from forebay_worker.shell import PATIENCE, ChunkShell

ROUNDS = 5
"""How often missing chunks are tried before their files count as failed."""

_IN_FLIGHT = 24
"""Chunks asked for at once: enough that those who fetch always find one to begin with."""

_ROUND_PAUSE = 2.0
_RETRY_PAUSE = 10.0
_LOOK_PAUSE = 1.0

_log = structlog.get_logger()


@dataclass(slots=True)
class Load:
    """One load and what is known of it."""

    id: str
    request: LoadRequest
    state: LoadState = LoadState.PENDING
    plan: LoadPlan | None = None
    presence: Presence = field(default_factory=lambda: Presence(0, b"", ()))
    looked_at: float = 0.0
    failed_files: int = 0
    problems: tuple[Problem, ...] = ()
    stop: threading.Event = field(default_factory=threading.Event)


class Loads:
    """All loads of this worker; a thread for each. Thread-safe."""

    def __init__(self, path: Path, shell: ChunkShell, index: IndexKeeper, membership: Membership) -> None:
        """``path`` is the file that keeps the requests."""
        self._path = path
        self._shell = shell
        self._index = index
        self._membership = membership
        self._lock = threading.Lock()
        self._loads: dict[str, Load] = {}

    def resume(self) -> None:
        """Begin anew what was asked for before the restart."""
        kept = read_document(self._path)
        for load_id, raw in (kept or {}).items():
            try:
                self._begin(str(load_id), LoadRequest.from_json(raw))
            except InvalidRequest as error:
                _log.warning("a kept load is malformed", load=load_id, error=error.message)

    def put(self, load_id: str, request: LoadRequest) -> LoadProgress:
        """Begin a load; the same request again changes nothing, another one replaces it."""
        with self._lock:
            known = self._loads.get(load_id)
        if known is not None and known.request == request:
            return self.progress(known)
        if known is not None:
            known.stop.set()
        load = self._begin(load_id, request)
        self._keep()
        return self.progress(load)

    def _begin(self, load_id: str, request: LoadRequest) -> Load:
        load = Load(load_id, request)
        with self._lock:
            self._loads[load_id] = load
        threading.Thread(target=self._run, args=(load,), name=f"load-{load_id}", daemon=True).start()
        return load

    def get(self, load_id: str) -> LoadProgress | None:
        """How far a load is; None when it is not known."""
        with self._lock:
            load = self._loads.get(load_id)
        return None if load is None else self.progress(load)

    def delete(self, load_id: str) -> None:
        """Stop and forget."""
        with self._lock:
            load = self._loads.pop(load_id, None)
        if load is not None:
            load.stop.set()
            self._keep()

    def _keep(self) -> None:
        with self._lock:
            write_document(self._path, {load.id: load.request.to_json() for load in self._loads.values()})

    def progress(self, load: Load) -> LoadProgress:
        """What the load's presence was at most a second ago."""
        plan = load.plan
        if plan is None:
            return LoadProgress(state=load.state, problems=load.problems)
        if time.monotonic() - load.looked_at > _LOOK_PAUSE:
            self._look(load, plan)
        return LoadProgress(
            state=load.state,
            generation=plan.generation,
            total_files=plan.total_files,
            total_bytes=plan.total_bytes,
            own_bytes=plan.own_bytes,
            present_bytes=load.presence.present_bytes,
            failed_files=load.failed_files,
            complete_files=load.presence.complete_files,
            problems=load.problems,
        )

    def _look(self, load: Load, plan: LoadPlan) -> Presence:
        cache = self._shell.cache
        load.presence = look(plan, (lambda _: False) if cache is None else cache.store.has_verified)
        load.looked_at = time.monotonic()
        return load.presence

    def _run(self, load: Load) -> None:
        while not load.stop.is_set():
            plan = load.plan
            if plan is None or self._is_stale(plan):
                plan = self._plan(load)
            elif load.state is LoadState.FAILED:
                # Credentials and disks get mended; whoever watches wants no new request for that.
                load.stop.wait(_RETRY_PAUSE)
            else:
                plan = None
            if plan is not None:
                self._work(load, plan)
            load.stop.wait(_LOOK_PAUSE)

    def _is_stale(self, plan: LoadPlan) -> bool:
        return (plan.generation, plan.epoch) != (self._index.generation, self._membership.ring.epoch)

    def _plan(self, load: Load) -> LoadPlan | None:
        """Plan on the newest index and ring; None while there is not yet what the request asks for."""
        snapshot, ring = self._index.current, self._membership.ring
        waiting = snapshot is None or snapshot.generation < load.request.generation
        if snapshot is None or waiting or not ring.members or self._shell.cache is None:
            return None
        replicated = self._membership.replicated

        def owns(key: ChunkKey) -> bool:
            if replicated:
                return True
            owner = ring.owner(key)
            return owner is not None and owner.id == self._membership.id

        files = (snapshot.object(entry) for _, entry in snapshot.files(load.request.paths))
        load.failed_files, load.problems = 0, ()
        load.plan = plan = make_plan(snapshot.generation, ring.epoch, files, owns)
        load.state = LoadState.RUNNING
        self._look(load, plan)
        return plan

    def _work(self, load: Load, plan: LoadPlan) -> None:
        """Fetch what is missing, round by round, until all is here, nothing helps, or the plan is stale."""
        presence = self._look(load, plan)
        for _ in range(ROUNDS):
            room = self._room(plan)
            wanted = what_fits(presence.missing, room)
            failures = self._fetch_all(load, plan, wanted)
            presence = self._look(load, plan)
            if load.stop.is_set() or self._is_stale(plan):
                return
            if not presence.missing:
                load.state, load.failed_files, load.problems = LoadState.COMPLETE, 0, ()
                return
            load.problems = self._problems(plan, failures)
            if load.stop.wait(_ROUND_PAUSE):
                return
        load.failed_files = len({chunk.file for chunk in presence.missing})
        load.state = LoadState.FAILED
        _log.warning("load failed", load=load.id, files=load.failed_files)

    def _room(self, plan: LoadPlan) -> int:
        """Bytes of this plan that can still come without driving out what it loaded before."""
        cache = self._shell.cache
        if cache is None:
            return 0
        return cache.store.usable_bytes() - sum(c.length for c in plan.own if cache.store.has_verified(c.key))

    def _problems(self, plan: LoadPlan, failures: dict[str, str]) -> tuple[Problem, ...]:
        cache = self._shell.cache
        if cache is not None and plan.own_bytes > cache.store.usable_bytes():
            message = (
                f"this worker's share is {plan.own_bytes} bytes but its tiers take {cache.store.usable_bytes()}; "
                "raise the tiers' quotas or the number of replicas, or load less"
            )
            return (Problem(reason="CapacityExceeded", message=message),)
        return tuple(Problem(reason=reason, message=message) for reason, message in failures.items())

    def _fetch_all(self, load: Load, plan: LoadPlan, wanted: list[PlannedChunk]) -> dict[str, str]:
        """Fetch the chunks, several at once; returns what went wrong: messages by reason."""
        flights = _UnderWay()
        for chunk in wanted:
            if load.stop.is_set() or self._is_stale(plan) or not flights.has_room():
                break
            if not self._is_here(chunk.key):
                flights.add(self._shell.fetch(chunk.object, chunk.number))
        return flights.settle()

    def _is_here(self, key: ChunkKey) -> bool:
        """Whether the chunk is here, verifying it when nobody has since the start."""
        cache = self._shell.cache
        if cache is None:
            return False
        lease = cache.store.lease(key)
        if lease is not None:
            lease.release()
        return lease is not None

    def stop(self) -> None:
        """Stop all; they resume after the restart."""
        with self._lock:
            for load in self._loads.values():
                load.stop.set()


class _UnderWay:
    """A load's flights, a bounded number at once, in whatever order they end; holds nothing of what they brought."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._failures: dict[str, str] = {}
        self._bug: BaseException | None = None

    def has_room(self) -> bool:
        """Wait until one more may begin; whether it may."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count < _IN_FLIGHT, 2 * PATIENCE) or self._timed_out()

    def add(self, flight: Arrival) -> None:
        """One more."""
        with self._changed:
            self._count += 1
        flight.then(self._ended)

    def _ended(self, error: BaseException | None) -> None:
        with self._changed:
            self._count -= 1
            if isinstance(error, ForebayError):
                self._failures[error.reason] = error.message
            elif isinstance(error, TimeoutError):
                self._timed_out()
            elif error is not None:
                self._bug = error
            self._changed.notify_all()

    def _timed_out(self) -> bool:
        self._failures["TimedOut"] = "a chunk did not arrive in time"
        return False

    def settle(self) -> dict[str, str]:
        """Wait until all have ended; what went wrong: messages by reason."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._count, 2 * PATIENCE):
                self._timed_out()
            if self._bug is not None:
                raise self._bug
            return dict(self._failures)
