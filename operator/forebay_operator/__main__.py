"""Run the operator: wait for the Lease, fill the caches, then reconcile until the Lease or the process ends."""

import asyncio
import logging
import signal
import sys
from dataclasses import replace

import kopf
import structlog

from forebay_operator import handlers
from forebay_operator.app import App, Reconciler
from forebay_operator.handlers.lifecycle import configure
from forebay_operator.health import serve
from forebay_operator.kube.cache import Cache
from forebay_operator.kube.client import Client, connect, image_of
from forebay_operator.kube.errors import KubeError
from forebay_operator.kube.lease import Lease
from forebay_operator.kube.lists import synchronise
from forebay_operator.metrics import LEADING
from forebay_operator.queue import KeyQueue
from forebay_operator.settings import Settings, from_environment
from forebay_operator.workers.client import WorkersClient
from forebay_operator.workers.fleet import Fleet

_log = structlog.get_logger()


async def _lead(client: Client, lease: Lease, settings: Settings, stop: asyncio.Event) -> int:
    """Everything that the leader does, until it is told to stop or one part of it ends; the exit code."""
    app = App(Cache(), KeyQueue())
    await _fill(client, app.cache)
    if not settings.worker_image:
        image = await image_of(client, settings.namespace, settings.identity)
        settings = replace(settings, worker_image=image)
    workers = WorkersClient()
    reconciler = Reconciler(client, app, Fleet(workers), settings)
    reconciler.enqueue_all()
    work = asyncio.create_task(reconciler.run())
    LEADING.set(1)
    others = [asyncio.create_task(part) for part in (stop.wait(), lease.keep(), _watch(app, settings, stop))]
    await asyncio.wait([work, *others], return_when=asyncio.FIRST_COMPLETED)
    for task in (work, *others):
        if task.done() and not task.cancelled() and task.exception() is not None:
            _log.error("stopping", problem=repr(task.exception()))
    # Nothing writes any more before another one may lead.
    work.cancel()
    await asyncio.wait([work])
    LEADING.set(0)
    await lease.release()
    await workers.close()
    return 0 if stop.is_set() else 1


async def _watch(app: App, settings: Settings, stop: asyncio.Event) -> None:
    """Let kopf feed the cache and the queue."""
    registry, kopf_settings = kopf.OperatorRegistry(), kopf.OperatorSettings()
    configure(kopf_settings)
    handlers.register(registry)
    ready = asyncio.Event()
    signals = asyncio.create_task(_keep_signals(ready, stop))
    await kopf.operator(
        ready_flag=ready,
        registry=registry,
        settings=kopf_settings,
        memo=app,
        standalone=True,
        clusterwide=True,
        stop_flag=stop,
        # Kopf would ask for the user's name, which a pod's user need not have.
        identity=settings.identity,  # type: ignore[arg-type]  # a NewType of str that kopf keeps private
    )
    signals.cancel()


async def _keep_signals(ready: asyncio.Event, stop: asyncio.Event) -> None:
    """Kopf takes the signals over when it starts and stops leisurely: take them back, for the Lease waits for us."""
    await ready.wait()
    _on_signal(stop)


def _on_signal(stop: asyncio.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _fill(client: Client, cache: Cache) -> None:
    """Know everything before anything is decided: a Secret that we have not seen must not be made anew."""
    while True:
        try:
            await synchronise(client, cache)
        except KubeError as error:
            _log.warning("caches not filled yet", problem=str(error))
            await asyncio.sleep(1)
        else:
            return


async def run(settings: Settings) -> int:
    """The process's life; the exit code."""
    stop = asyncio.Event()
    _on_signal(stop)
    lease: Lease | None = None
    client = Client(await connect(), lambda: lease is not None and lease.held())
    lease = Lease(client, settings.lease, settings.namespace, settings.identity)
    health = await serve(settings.health_port) if settings.health_port else None
    try:
        return await _under_lease(client, lease, settings, stop)
    finally:
        await client.close()
        if health is not None:
            await health.cleanup()


async def _under_lease(client: Client, lease: Lease, settings: Settings, stop: asyncio.Event) -> int:
    stopped = asyncio.create_task(stop.wait())
    acquired = asyncio.create_task(lease.acquire())
    await asyncio.wait([stopped, acquired], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if stop.is_set():
        acquired.cancel()
        await asyncio.wait([acquired])
        await lease.release()
        return 0
    return await _lead(client, lease, settings, stop)


def main() -> None:
    """Read the settings and run."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    logging.basicConfig(level=logging.WARNING)
    try:
        settings = from_environment()
    except ValueError as error:
        sys.exit(str(error))
    sys.exit(asyncio.run(run(settings)))


if __name__ == "__main__":
    main()
