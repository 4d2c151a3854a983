"""The control API by aiohttp, in a thread with an event loop of its own.

Handlers run blocking work in the default executor; the loop itself never waits for disks or locks.
"""

import asyncio
import logging
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from forebay.trust import Trust, seal
from forebay_protocol import control
from forebay_protocol.auth import Grant
from forebay_protocol.control import LoadRequest
from forebay_protocol.errors import ForebayError, InvalidRequest, Unauthorized
from forebay_protocol.keys import ObjectVersion
from forebay_protocol.ring import Ring

if TYPE_CHECKING:
    from forebay_worker.app import Worker

_OPEN_ROUTES = {control.HEALTH, control.READY, control.METRICS}
_MAX_BODY = 16 * 1024 * 1024
_LONGEST_LOAD_ID = 253
_ASKERS = 8

_SILENT = "forebay_worker.serve.control.aiohttp"

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = structlog.get_logger()


def _failure(error: ForebayError) -> web.Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    body = {"code": error.code, "reason": error.reason, "message": error.message}
    return web.json_response(body, status=error.http_status, headers=headers)


class ControlServer:
    """HTTP on one port until stopped."""

    def __init__(self, worker: "Worker", tls: ssl.SSLContext | None = None) -> None:
        """Serves what ``worker`` knows, over TLS when there is a context for that."""
        self._tls = tls
        self._worker = worker
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="control", daemon=True)
        self._askers = ThreadPoolExecutor(_ASKERS, "newest")
        self._runner: web.AppRunner | None = None

    def start(self, address: str, port: int) -> int:
        """Begin to serve; returns the port."""
        self._thread.start()
        return self._wait(self._start(address, port))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=15)

    async def _start(self, address: str, port: int) -> int:
        app = web.Application(middlewares=[self._guard], client_max_size=_MAX_BODY)
        app.add_routes(
            [
                web.get(control.HEALTH, self._health),
                web.get(control.READY, self._ready),
                web.get(control.METRICS, self._metrics),
                web.put(control.RING, self._put_ring),
                web.get(control.RING, self._get_ring),
                web.get(control.STATUS, self._status),
                web.get(control.INDEX, self._index),
                web.post(control.INDEX, self._stale_index),
                web.post(control.NEWEST, self._newest),
                web.put(control.LOADS + "/{id}", self._put_load),
                web.get(control.LOADS + "/{id}", self._get_load),
                web.delete(control.LOADS + "/{id}", self._delete_load),
                web.get(control.TRUST, self._trust),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, logger=_silent())
        await self._runner.setup()
        site = web.TCPSite(self._runner, address, port, ssl_context=self._tls)
        await site.start()
        return int(self._runner.addresses[0][1])

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _OPEN_ROUTES:
            return await handler(request)
        try:
            grant = self._grant(request)
        except ForebayError as error:
            return _failure(error)
        try:
            request["grant"] = grant
            answer = await handler(request)
        except ForebayError as error:
            answer = _failure(error)
        except web.HTTPException:
            raise
        except Exception:  # noqa: BLE001 - the outermost edge: the library would log the request with its token
            _log.exception("a request failed for a reason that is a defect", method=request.method, route=request.path)
            return web.Response(status=500, text="this worker failed to answer; its log says why\n")
        answer.headers[control.KEY_HEADER] = next(iter(self._worker.access.key_ids()))
        return answer

    def _grant(self, request: web.Request) -> Grant:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            raise Unauthorized("send Authorization: Bearer with a token of this dataset")
        return self._worker.access.check(token)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        why_not = self._worker.why_not_ready()
        return web.Response(text=f"{why_not or 'ok'}\n", status=503 if why_not else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        body = await asyncio.to_thread(lambda: generate_latest(self._worker.measured()))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _put_ring(self, request: web.Request) -> web.Response:
        ring = Ring.from_json(await _json(request))
        epoch = await asyncio.to_thread(self._worker.membership.offer, ring)
        return web.json_response({"epoch": epoch})

    async def _get_ring(self, _: web.Request) -> web.Response:
        return web.json_response(self._worker.membership.ring.to_json())

    async def _status(self, _: web.Request) -> web.Response:
        status = await asyncio.to_thread(self._worker.status)
        return web.json_response(status.to_json())

    async def _index(self, request: web.Request) -> web.StreamResponse:
        packed = await asyncio.to_thread(self._worker.index.packed)
        if packed is None:
            return web.Response(status=404, text="no index yet\n")
        generation, body = packed
        headers = {control.GENERATION_HEADER: str(generation)}
        if request.query.get("have") == str(generation):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = "application/octet-stream"
        return web.FileResponse(body, headers=headers)

    async def _stale_index(self, _: web.Request) -> web.Response:
        await asyncio.to_thread(self._worker.index_is_stale)
        return web.Response(status=202)

    async def _newest(self, request: web.Request) -> web.Response:
        raw = await _json(request)
        try:
            names = [raw[part].encode("utf-8", "surrogateescape") for part in ("dataset", "mount", "key", "version")]
            dataset, mount, key, version = (name.decode("utf-8", "surrogateescape") for name in names)
            one = ObjectVersion(dataset, mount, key, version, int(raw["size"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidRequest("the body names no object") from error
        # A source may take its time, and whoever wants to know something else shall not wait for that.
        found = await self._loop.run_in_executor(self._askers, self._worker.newest, one)
        if found is None:
            return web.Response(status=204)
        return web.json_response({"version": found.version, "size": found.size, "mtimeNs": found.mtime_ns})

    async def _put_load(self, request: web.Request) -> web.Response:
        load_id = request.match_info["id"]
        if len(load_id) > _LONGEST_LOAD_ID:
            raise InvalidRequest(f"a load's id has {_LONGEST_LOAD_ID} characters at most")
        wanted = LoadRequest.from_json(await _json(request))
        progress = await asyncio.to_thread(self._worker.loads.put, load_id, wanted)
        return web.json_response(progress.to_json())

    async def _get_load(self, request: web.Request) -> web.Response:
        progress = await asyncio.to_thread(self._worker.loads.get, request.match_info["id"])
        if progress is None:
            return web.Response(status=404, text="no such load\n")
        return web.json_response(progress.to_json())

    async def _delete_load(self, request: web.Request) -> web.Response:
        await asyncio.to_thread(self._worker.loads.delete, request.match_info["id"])
        return web.Response(status=204)

    async def _trust(self, request: web.Request) -> web.Response:
        access = self._worker.access.need()
        body = seal(Trust(access.keys), request["grant"].key, access.dataset.uid)
        return web.Response(body=body, content_type="application/octet-stream")

    def stop(self) -> None:
        """Stop serving and end the thread."""
        if self._runner is not None:
            self._wait(self._runner.cleanup())
        self._askers.shutdown(wait=False, cancel_futures=True)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)


def _silent() -> logging.Logger:
    """For the HTTP library: what it says of a malformed request quotes it, and the token in it."""
    logger = logging.getLogger(_SILENT)
    logger.disabled = True
    return logger


async def _json(request: web.Request) -> Any:
    try:
        return await request.json()
    except (ValueError, LookupError, RecursionError) as error:
        raise InvalidRequest("the body is not JSON") from error
