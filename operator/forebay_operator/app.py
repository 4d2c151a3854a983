"""The composition root: one loop that observes, plans and executes, for whatever key the queue hands out."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from forebay_operator.kube.cache import Cache
from forebay_operator.kube.client import Client
from forebay_operator.kube.errors import KubeError, NotLeader
from forebay_operator.kube.execute import Executor
from forebay_operator.kube.lists import synchronise
from forebay_operator.kube.observe import Observer, sample
from forebay_operator.metrics import PASS_SECONDS, PASSES
from forebay_operator.model.dataload import DataLoad
from forebay_operator.model.resource import Object
from forebay_operator.queue import NODE_FOLDERS, Key, KeyQueue
from forebay_operator.reconcile import dataload as loads
from forebay_operator.reconcile import provisioning
from forebay_operator.reconcile.dataload import plan_dataload
from forebay_operator.reconcile.dataset import plan_dataset
from forebay_operator.reconcile.plan import Event, Ref
from forebay_operator.reconcile.runtime import plan_runtime
from forebay_operator.settings import Settings
from forebay_operator.workers.fleet import Change, Fleet, WorkerAccess
from forebay_protocol.control import LoadProgress

_log = structlog.get_logger()
_LONGEST_BACKOFF = 15.0


@dataclass(frozen=True, slots=True)
class App:
    """What event handlers reach: the cache to fill and the queue to feed. kopf copies it per object."""

    cache: Cache
    queue: KeyQueue


class Asked(NamedTuple):
    """A load that workers were asked for."""

    uid: str
    dataset: str


class Reconciler:
    """Takes keys from the queue and makes the world match."""

    def __init__(self, client: Client, app: App, fleet: Fleet, settings: Settings) -> None:
        self._client = client
        self._cache = app.cache
        self._queue = app.queue
        self._fleet = fleet
        self._settings = settings
        self._observer = Observer(client, app.cache)
        self._executor = Executor(client, app.cache)
        self._failures: defaultdict[Key, int] = defaultdict(int)
        self._refused: dict[Key, tuple[str, ...]] = {}
        self._samples: dict[Key, loads.Sample] = {}
        self._asked: dict[Key, Asked] = {}
        self._told: dict[Key, tuple[Event, ...]] = {}
        self._announced: Object | None = None
        self._passes: dict[str, Callable[[Key], Awaitable[float | None]]] = {
            "Dataset": self._dataset,
            "Runtime": self._runtime,
            "DataLoad": self._dataload,
            "PersistentVolume": self._volume,
            "PersistentVolumeClaim": self._claim,
            NODE_FOLDERS.kind: self._node_folders,
        }

    async def run(self) -> None:
        """Reconcile for ever, several objects at a time."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._settings.concurrency):
                tasks.create_task(self._work())
            tasks.create_task(self._resync())

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            try:
                with PASS_SECONDS.labels(key.kind).time():
                    delay = await self._passes[key.kind](key)
                self._failures.pop(key, None)
                PASSES.labels(key.kind, "ok").inc()
            except KubeError as error:
                delay = self._backoff(key)
                _log.warning("pass failed", **key._asdict(), problem=str(error), retry_after=delay)
            except NotLeader:
                raise
            except Exception:  # noqa: BLE001 - the outermost edge: one object's surprise must not stop all others
                delay = self._backoff(key)
                _log.exception("pass failed", **key._asdict(), retry_after=delay)
            finally:
                self._queue.done(key)
            if delay is not None:
                self._queue.add_later(key, delay)

    def _backoff(self, key: Key) -> float:
        PASSES.labels(key.kind, "error").inc()
        self._failures[key] += 1
        return min(_LONGEST_BACKOFF, 0.5 * 2.0 ** min(self._failures[key], 10))

    async def _resync(self) -> None:
        """A watch may miss a deletion while it (re)connects: now and then compare, and look at everything once."""
        pause = self._settings.first_resync
        while True:
            await asyncio.sleep(pause)
            pause = self._settings.resync
            try:
                missed = await synchronise(self._client, self._cache)
            except KubeError as error:
                _log.warning("resync failed", problem=str(error))
                continue
            if missed:
                _log.info("resync found deletions", count=len(missed))
            self.enqueue_all()

    def enqueue_all(self) -> None:
        """Look at everything."""
        self._announced = None
        self._queue.add(NODE_FOLDERS)
        for kind in self._passes:
            for raw in self._cache.all(kind):
                self._queue.add(Key(kind, raw["metadata"].get("namespace", ""), raw["metadata"]["name"]))

    def _access(self, namespace: str, name: str) -> WorkerAccess | None:
        facts = self._observer.workers(namespace, name)
        return WorkerAccess(**facts._asdict()) if facts else None

    async def _runtime(self, key: Key) -> float | None:
        subject = self._observer.subject(*key)
        access = self._access(key.namespace, key.name)
        changed = await self._fleet.poll(key.namespace, key.name, access if subject else None)
        if changed is not Change.NONE:
            self._queue.add(Key("Dataset", key.namespace, key.name))
        if subject is None:
            self._forget(key)
            return None
        reports = self._fleet.reports(key.namespace, key.name)
        seen = replace(
            await self._observer.runtime(subject, reports, self._settings.worker_image),
            refused=self._refused.get(key, ()),
            changing=changed is Change.STANDING,
        )
        plan = plan_runtime(seen, datetime.now(UTC))
        refused = await self._executor.execute(subject, "Runtime", plan)
        if refused != self._refused.get(key, ()):
            self._refused[key] = refused
            self._queue.add(key)
        if plan.ring is not None and access is not None:
            await self._fleet.publish(access, plan.ring)
        return plan.requeue_after

    async def _dataset(self, key: Key) -> float | None:
        subject = self._observer.subject(*key)
        if subject is None:
            return None
        reports = self._fleet.reports(key.namespace, key.name)
        plan = plan_dataset(await self._observer.dataset(subject, reports), datetime.now(UTC))
        refused = await self._executor.execute(subject, "Dataset", plan)
        if refused:
            _log.warning("refused", **key._asdict(), problems=refused)
            return self._backoff(key)
        return plan.requeue_after

    async def _dataload(self, key: Key) -> float | None:
        subject = self._observer.subject(*key)
        load = DataLoad.read(subject) if subject else None
        await self._stop_former(key, load)
        if subject is None or load is None:
            self._forget(key)
            return None
        progress = await self._progress(key, load)
        seen = self._observer.dataload(subject, progress, self._samples.get(key))
        now = datetime.now(UTC)
        plan = plan_dataload(seen, now)
        taken = sample(seen, now)
        if taken is not None:
            self._samples[key] = taken
        await self._executor.execute(subject, "DataLoad", plan)
        return plan.requeue_after

    async def _progress(self, key: Key, load: DataLoad) -> dict[str, LoadProgress]:
        """Ask the workers for the load, which also tells how far it is."""
        namespace, dataset = key.namespace, load.spec.dataset
        access = self._access(namespace, dataset)
        if access is None or load.deleting or load.finished:
            return {}
        self._asked[key] = Asked(load.metadata.uid, dataset)
        members = self._observer.active_members(namespace, dataset)
        return await self._fleet.load(access, members, load.metadata.uid, loads.request(load))

    async def _stop_former(self, key: Key, load: DataLoad | None) -> None:
        """Workers forget a load that has finished, or that was deleted while it ran."""
        asked = self._asked.get(key)
        if asked is None or (load is not None and load.metadata.uid == asked.uid and not load.finished):
            return
        del self._asked[key]
        self._samples.pop(key, None)
        access = self._access(key.namespace, asked.dataset)
        if access is not None:
            await self._fleet.forget_load(access, asked.uid)

    def _forget(self, key: Key) -> None:
        self._samples.pop(key, None)
        self._refused.pop(key, None)
        self._failures.pop(key, None)

    async def _volume(self, key: Key) -> float | None:
        """A volume outlives its Dataset only when someone took our finalizer away: collect it."""
        raw = self._observer.subject(*key)
        if raw is not None and self._observer.serves_nobody(raw):
            await self._executor.delete(Ref(*key))
        return None

    async def _claim(self, key: Key) -> float | None:
        """Provision a claim of a StorageClass. It has no status of ours: events say what is wrong, each once."""
        raw = self._observer.subject(*key)
        if raw is None or not provisioning.is_ours(raw):
            self._told.pop(key, None)
            return None
        plan = provisioning.plan_claim(self._observer.claim(raw))
        refused = await self._executor.execute(raw, key.kind, replace(plan, events=()))
        events = tuple(Event("Warning", "ProvisioningFailed", why) for why in refused) or plan.events
        for event in set(events) - set(self._told.get(key, ())):
            await self._executor.tell(key.kind, raw, event)
        self._told[key] = events
        return plan.requeue_after

    async def _node_folders(self, _: Key) -> float | None:
        """Tell the node plugins whose folders may stay."""
        wanted = self._observer.runtimes_on_nodes()
        if wanted != self._announced:
            await self._executor.announce(wanted)
            self._announced = wanted
        return None
