"""Keep the index new: the first active member lists the sources, all others fetch what it has built."""

import threading
import time

import structlog

from forebay.control import ControlClient
from forebay.index.packing import unpack
from forebay.index.writer import Origin as SnapshotOrigin
from forebay.tls import TlsProvider
from forebay_protocol.control import IndexState, IndexStatus, Problem
from forebay_protocol.errors import ForebayError
from forebay_protocol.ring import Member
from forebay_worker.access import Access, AccessWatcher
from forebay_worker.index.build import ListingFailed, build
from forebay_worker.index.keeper import IndexKeeper
from forebay_worker.membership import Membership
from forebay_worker.metrics import Metrics
from forebay_worker.origin import Origin

RETRY_SECONDS = 4.0
"""Pause after a listing that failed."""

FOLLOW_SECONDS = 2.0
"""Pause between a follower's questions for something newer."""

PROBE_SECONDS = 5.0
"""Pause between questions whether the stores still work, so that an outage shows before the next listing."""

LEAST_SECONDS = 1.0
"""Least pause between two listings, however often one is asked for."""

SUSPICION_COST = 5.0
"""Readers who meet changed objects cause listings for at most one part in so many of the time."""

_log = structlog.get_logger()


def next_generation(newest: int, now: float) -> int:
    """Generations are Unix times: they go up even when every worker has forgotten the earlier ones."""
    return max(newest + 1, int(now))


class IndexRefresh:
    """A background thread that builds or follows."""

    def __init__(
        self,
        keeper: IndexKeeper,
        membership: Membership,
        access: AccessWatcher,
        origin: Origin,
        metrics: Metrics,
        tls: TlsProvider,
    ) -> None:
        """Nothing is listed before ``start``."""
        self._keeper = keeper
        self._membership = membership
        self._access = access
        self._origin = origin
        self._metrics = metrics
        self._tls = tls
        self._wake = threading.Condition()
        self._stopped = False
        self._wanted = True
        self._suspected = False
        self._not_before = 0.0
        self._checked_at = 0.0
        self._probed_at = time.monotonic()
        self._state = IndexState.NONE
        self._problems: tuple[Problem, ...] = ()
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def want(self) -> None:
        """List again soon: something changed, or a reader met a changed object."""
        with self._wake:
            self._wanted = True
            self._wake.notify_all()

    def suspect(self) -> None:
        """The listing seems to be out of date: list again soon, but do not spend all time on that."""
        self._suspected = True
        if time.monotonic() >= self._not_before:
            self.want()

    def _run(self) -> None:
        while True:
            pause = self._turn()
            with self._wake:
                self._wake.wait_for(lambda: self._stopped, timeout=LEAST_SECONDS)
                self._wake.wait_for(lambda: self._stopped or self._wanted, timeout=max(0.0, pause - LEAST_SECONDS))
                if self._stopped:
                    return

    def _turn(self) -> float:
        """Do what is due; returns the seconds until the next look."""
        access, builder = self._access.current, self._membership.builder()
        self._probe(everything=builder is not None and builder.id == self._membership.id)
        if access is None or builder is None:
            return LEAST_SECONDS
        if builder.id != self._membership.id:
            self._follow(builder)
            return FOLLOW_SECONDS
        if self._is_due(access):
            self._build(access)
        age = time.monotonic() - self._checked_at
        self._metrics.index_age_seconds.set(age if self._checked_at else 0)
        return RETRY_SECONDS if self._problems else FOLLOW_SECONDS

    def _probe(self, *, everything: bool) -> None:
        """Whoever lists asks all stores now and then; everybody asks those that failed him."""
        due = everything and time.monotonic() - self._probed_at >= PROBE_SECONDS
        self._origin.probe(failing_only=not due)
        if due:
            self._probed_at = time.monotonic()

    def _is_due(self, access: Access) -> bool:
        if self._wanted or self._keeper.current is None or self._problems:
            return True
        if self._suspected and time.monotonic() >= self._not_before:
            return True
        interval = access.dataset.refresh_seconds
        return interval is not None and time.monotonic() - self._checked_at >= interval

    def _build(self, access: Access) -> None:
        self._wanted = self._suspected = False
        self._state = IndexState.BUILDING
        now, start = time.time(), time.monotonic()
        generation = next_generation(self._keeper.generation, now)
        origin = SnapshotOrigin(
            dataset_uid=access.dataset.uid, generation=generation, built_at=now, mounts=access.dataset.mounts
        )
        try:
            fingerprint = build(self._keeper.draft, self._keeper.packed_draft, origin, self._origin.source)
            current = self._keeper.current
            if current is None or current.fingerprint != fingerprint or current.dataset != access.dataset.uid:
                self._keeper.adopt_draft()
        except (ListingFailed, ForebayError, OSError) as error:
            self._failed(error)
            return
        finally:
            self._not_before = time.monotonic() + SUSPICION_COST * (time.monotonic() - start)
        self._checked_at = time.monotonic()
        self._problems, self._state = (), IndexState.READY

    def _failed(self, error: ListingFailed | ForebayError | OSError) -> None:
        cause = error.cause if isinstance(error, ListingFailed) else error
        mount = error.mount if isinstance(error, ListingFailed) else ""
        if isinstance(cause, ForebayError):
            problem = Problem(reason=cause.reason, message=cause.message, mount=mount)
        else:
            problem = Problem(reason="IndexNotWritten", message=f"the state volume refuses the index: {cause}")
        _log.warning("listing failed", reason=problem.reason, mount=mount, error=problem.message)
        self._metrics.index_failures.labels(problem.reason).inc()
        self._problems, self._state = (problem,), IndexState.FAILED

    def _follow(self, builder: Member) -> None:
        """Fetch the builder's index when it is newer than ours."""
        self._wanted = False
        try:
            client = ControlClient(
                builder.address, builder.control_port, self._access.token, timeout=10.0, tls=self._tls()
            )  # fmt: skip
            if self._suspected:
                client.report_stale_index()
                self._suspected = False
            if client.fetch_index(self._keeper.generation, self._keeper.packed_draft) is not None:
                unpack(self._keeper.packed_draft, self._keeper.draft)
                self._keeper.adopt_draft()
        except (ForebayError, OSError) as error:
            # The builder tells its own problems; that it cannot be asked is the ring's matter.
            _log.debug("no index from the builder", builder=builder.id, error=str(error))
        self._problems = ()
        self._state = IndexState.NONE if self._keeper.current is None else IndexState.READY

    def status(self) -> IndexStatus:
        """The index for the worker's status."""
        current = self._keeper.current
        if current is None:
            return IndexStatus(state=self._state, problems=self._problems)
        return IndexStatus(
            state=self._state,
            generation=current.generation,
            built_at=current.built_at,
            total_bytes=current.total_bytes,
            file_count=current.file_count,
            problems=self._problems,
        )

    def stop(self) -> None:
        """Stop; a listing under way is not waited for."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
