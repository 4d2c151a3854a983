"""Talk to workers: their status, the ring, loads. Failing to reach one is an answer, not an error."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import aiohttp
import structlog

from forebay.tls import ClientTls
from forebay_protocol import auth, control
from forebay_protocol.control import LoadProgress, LoadRequest, WorkerStatus
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.ring import Ring
from forebay_protocol.volume import CONTROL_PORT

_Answer = TypeVar("_Answer")
_log = structlog.get_logger()
_TIMEOUT = aiohttp.ClientTimeout(total=4, connect=2)


@dataclass(frozen=True, slots=True)
class Approach:
    """How to ask a worker: with which token, and verified by what; None is plain HTTP."""

    token: str = field(repr=False)
    tls: ClientTls | None = None


class WorkersClient:
    """Requests to workers. An answer of None means that this worker gave none that we can use."""

    def __init__(self, port: int = CONTROL_PORT) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def status(self, address: str, approach: Approach) -> WorkerStatus | None:
        """What the worker says of itself."""
        answer = await self._send("GET", address, control.STATUS, approach)
        return _parsed(address, WorkerStatus.from_json, answer)

    async def put_ring(self, address: str, approach: Approach, ring: Ring) -> int | None:
        """Hand the ring over; the newest epoch that the worker knows then."""
        answer = await self._send("PUT", address, control.RING, approach, ring.to_json())
        return int(answer["epoch"]) if isinstance(answer, dict) and "epoch" in answer else None

    async def put_load(
        self, address: str, approach: Approach, load_id: str, request: LoadRequest
    ) -> LoadProgress | None:
        """Ask for a load, again and again: the answer is how far it is."""
        answer = await self._send("PUT", address, f"{control.LOADS}/{load_id}", approach, request.to_json())
        return _parsed(address, LoadProgress.from_json, answer)

    async def delete_load(self, address: str, approach: Approach, load_id: str) -> None:
        """Stop a load."""
        await self._send("DELETE", address, f"{control.LOADS}/{load_id}", approach)

    async def _send(self, method: str, address: str, path: str, approach: Approach, body: Any = None) -> Any:
        host = f"[{address}]" if ":" in address else address
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        headers = {"Authorization": f"Bearer {approach.token}"}
        tls = approach.tls
        url = f"{'https' if tls else 'http'}://{host}:{self._port}{path}"
        secured: Any = {"ssl": tls.context, "server_hostname": tls.server_name} if tls else {}
        try:
            async with self._session.request(method, url, json=body, headers=headers, **secured) as answer:
                if answer.status == 204:
                    return None
                content = await answer.json()
                if answer.status >= 400:
                    _log.info("worker refused", address=address, path=path, status=answer.status, answer=content)
                    return None
                return content
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            _log.debug("worker did not answer", address=address, path=path, problem=repr(error))
            return None


def _parsed(address: str, parse: Callable[[Any], _Answer], answer: Any) -> _Answer | None:
    if answer is None:
        return None
    try:
        return parse(answer)
    except InvalidRequest as error:
        _log.warning("worker answered something else", address=address, problem=str(error))
        return None


@lru_cache(maxsize=1024)
def verified_by(authority: str, host: str) -> ClientTls:
    """How to verify workers; made once for each authority, since connections are kept for each context."""
    return ClientTls.of(authority, host)


def token_for(key: bytes, dataset_uid: str) -> str:
    """A token that the Dataset's workers accept."""
    return auth.mint(key, dataset_uid, time.time())
