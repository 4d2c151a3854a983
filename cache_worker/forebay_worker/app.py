"""The composition of a worker: which part knows which."""

import time

import structlog
from prometheus_client import CollectorRegistry

from forebay.source import Grant, Listing
from forebay.tls import ClientTls
from forebay_protocol.control import WorkerStatus
from forebay_protocol.errors import InvalidRequest, SourceError
from forebay_protocol.keys import ObjectVersion
from forebay_protocol.shares import worker_share
from forebay_protocol.volume import worker_host
from forebay_worker.access import Access, AccessWatcher
from forebay_worker.index.keeper import IndexKeeper
from forebay_worker.index.refresh import IndexRefresh
from forebay_worker.loads import Loads
from forebay_worker.membership import Membership
from forebay_worker.metrics import Metrics
from forebay_worker.origin import Origin
from forebay_worker.peers import Peers
from forebay_worker.serve.control import ControlServer
from forebay_worker.serve.data import DataServer, Progress
from forebay_worker.serve.tls import WorkerTls
from forebay_worker.settings import WorkerSettings
from forebay_worker.shell import ChunkShell, Judged, Limits
from forebay_worker.store.mover import Mover
from forebay_worker.store.scrub import Scrub
from forebay_worker.store.sealing import Sealing
from forebay_worker.store.tiered import ChunkStore
from forebay_worker.wholeness import Wholeness
from forebay_worker.window import ServedWindow
from forebay_worker.worth import Appraiser

ESSENTIAL_THREADS = {"access", "accept", "appraise", "index", "mover", "reactor", "scrub", "tls", "wholeness"}
"""Threads that must run as long as the worker does."""

_log = structlog.get_logger()


def _sealing(access: Access) -> Sealing | None:
    return Sealing(access.data_key) if access.data_key else None


def _is_of(store: ChunkStore, access: Access) -> bool:
    """Whether a store goes on to be the right one: of the same dataset, encrypted with the same key."""
    before, now = store.sealing, _sealing(access)
    return store.dataset == access.dataset.uid and (before and before.key_id) == (now and now.key_id)


class Worker:
    """One cache worker in this process; ``start`` returns when both ports are open."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Build all parts; no thread runs and no port is open yet."""
        self._settings = settings
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        self.metrics = Metrics()
        self._tls = None if settings.tls_dir is None else WorkerTls(settings.tls_dir, settings.poll_seconds)
        self.access = AccessWatcher(settings.access_dir, settings.poll_seconds)
        self.membership = Membership(settings.id, settings.state_dir / "ring.json")
        self.index = IndexKeeper(settings.state_dir / "index")
        self._origin = Origin(
            self.metrics,
            lambda: worker_share(self.membership.ring),
            Grant(one_tenant=True, claims=settings.claims_dir),
        )
        self._peers = Peers(self.membership, self.access, self.metrics, self._client_tls)
        limits = Limits(settings.fetchers, settings.fill_bytes)
        self.shell = ChunkShell(self.membership, self._origin, self._peers, self.metrics, limits)
        self._refresh = IndexRefresh(
            self.index, self.membership, self.access, self._origin, self.metrics, self._client_tls
        )
        self._appraiser = Appraiser(self.membership, self.index, self.shell)
        self.loads = Loads(settings.state_dir / "loads.json", self.shell, self.index, self.membership)
        self._window = ServedWindow()
        self._scrub = Scrub(self._store, settings.scrub_rate, self.metrics)
        self._wholeness = Wholeness(self._store, self._origin.digest, self.metrics)
        tls = None if self._tls is None else self._tls.context
        self._mover = Mover(self._store)
        self._data = DataServer(
            self.shell,
            self.access.admit,
            Progress(lambda: self.membership.ring.epoch, lambda: self.index.generation),
            self.metrics,
            self._window,
            max_connections=settings.max_connections,
            tls=tls,
        )
        self._control = ControlServer(self, tls)
        self._stopping = False
        self.data_port = 0
        self.control_port = 0

    def start(self) -> None:
        """Open the ports and begin all that runs in the background."""
        self.access.listen(self._access_changed)
        self.membership.listen(lambda _: self._ring_changed())
        self.index.listen(lambda _: self._appraiser.want())
        self.shell.on_source_error = self._source_failed
        self.shell.on_kept = self._wholeness.arrived
        if self._tls is not None:
            self._tls.start()
        self._appraiser.start()
        self.access.start()
        self.loads.resume()
        self._refresh.start()
        self._scrub.start()
        self._wholeness.start()
        self._mover.start()
        self.data_port = self._data.start(self._settings.address, self._settings.data_port)
        self.control_port = self._control.start(self._settings.address, self._settings.control_port)
        _log.info("worker started", id=self._settings.id, data_port=self.data_port, control_port=self.control_port)

    def _client_tls(self) -> ClientTls | None:
        """How this worker verifies others of the same dataset."""
        if self._tls is None:
            return None
        dataset = self.access.need().dataset
        return self._tls.client(worker_host(dataset.name, dataset.namespace))

    def _store(self) -> ChunkStore | None:
        cache = self.shell.cache
        return None if cache is None else cache.store

    def _access_changed(self, access: Access) -> None:
        self._origin.change(access)
        cache = self.shell.cache
        if cache is None or not _is_of(cache.store, access):
            self.shell.cache = None
            if cache is not None:
                cache.store.close()
            self._open_store(access)
        self._refresh.want()

    def _open_store(self, access: Access) -> None:
        store = ChunkStore(self._settings.tiers, access.dataset.uid, self.metrics, _sealing(access))
        self.index.load(access.dataset.uid)
        self.shell.cache = Judged(store, self._appraiser.judge)
        self._appraiser.want()

    def _ring_changed(self) -> None:
        self._appraiser.want()
        self._refresh.want()

    def _source_failed(self, error: SourceError) -> None:
        _log.info("the store failed a read", reason=error.reason, error=error.message)
        self.index_is_stale()

    def index_is_stale(self) -> None:
        """Some object is not as listed, or its store fails; who never wants another listing gets none for that."""
        access = self.access.current
        if access is not None and access.dataset.refresh_seconds is not None:
            self._refresh.suspect()

    def newest(self, one: ObjectVersion) -> Listing | None:
        """The object as its source has it now; where that is not what the index says, list again soon."""
        if one.dataset != self.access.need().dataset.uid:
            raise InvalidRequest("the token opens another dataset")
        found = self._origin.newest(one)
        if found is None or (found.version, found.size) != (one.version, one.size):
            self.index_is_stale()
        return found

    def why_not_ready(self) -> str:
        """What keeps this worker from serving; empty when nothing does."""
        if self._stopping:
            return "stopping"
        if self.access.current is None:
            return self.access.problem.message if self.access.problem else "no access yet"
        return "" if self.membership.is_member() else "no ring names this worker yet"

    def measured(self) -> CollectorRegistry:
        """The metrics, with those brought up to date that nobody sets on change."""
        store = self._store()
        self.metrics.cached_bytes.set(0 if store is None else store.cached_bytes)
        self.metrics.index_generation.set(self.index.generation)
        self.metrics.ring_epoch.set(self.membership.ring.epoch)
        return self.metrics.registry

    def status(self) -> WorkerStatus:
        """What the worker says of itself."""
        access, store = self.access.current, self._store()
        hit, miss = self._window.totals()
        return WorkerStatus(
            id=self._settings.id,
            epoch=self.membership.ring.epoch,
            dataset_revision="" if access is None else access.revision,
            index=self._refresh.status(),
            tiers=() if store is None else store.tier_statuses(),
            cached_bytes=0 if store is None else store.cached_bytes,
            held_bytes=0 if store is None else store.held_bytes,
            window_hit_bytes=hit,
            window_miss_bytes=miss,
            origin_bytes=self._origin.bytes,
            peer_bytes=self._peers.bytes,
            corrupt_chunks=0 if store is None else store.corrupt_chunks,
            keys=self.access.key_ids(),
            problems=(*(() if self.access.problem is None else (self.access.problem,)), *self._origin.problems),
        )

    def stop(self) -> None:
        """Not ready any more; answers under way end; everything is closed."""
        start = time.monotonic()
        self._stopping = True
        self._refresh.stop()
        self.loads.stop()
        self._data.stop(self._settings.stop_seconds)
        self._scrub.stop()
        self._wholeness.stop()
        self._mover.stop()
        self._appraiser.stop()
        self.access.stop()
        if self._tls is not None:
            self._tls.stop()
        self.shell.close()
        cache, self.shell.cache = self.shell.cache, None
        if cache is not None:
            cache.store.close()
        self._control.stop()
        self._peers.close()
        self._origin.close()
        _log.info("worker stopped", seconds=round(time.monotonic() - start, 3))
