"""Leader election over a Lease: of several operators, one writes.

A follower judges by its own monotonic clock for how long the Lease has not been renewed; clocks of different
machines are never compared. The leader gives up before a follower may take over.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import structlog

from forebay_operator.kube.client import Client
from forebay_operator.kube.errors import Conflict, KubeError, NotFound
from forebay_operator.kube.kinds import LEASES
from forebay_operator.settings import LeaseSettings

_log = structlog.get_logger()
_SAFETY = 2.0


class LeaseLost(Exception):
    """The Lease could not be renewed in time or belongs to another one: stop at once."""


class Lease:
    """Our view of the Lease."""

    def __init__(self, client: Client, settings: LeaseSettings, namespace: str, identity: str) -> None:
        self._client = client
        self._settings = settings
        self._namespace = namespace
        self._identity = identity
        self._seen: tuple[str, float] = ("", 0.0)
        self._valid_until = 0.0

    def held(self) -> bool:
        """Whether we may write now."""
        return time.monotonic() < self._valid_until

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        while True:
            if await self._try():
                break
            await asyncio.sleep(self._settings.retry)
        _log.info("lease acquired", identity=self._identity)

    async def keep(self) -> None:
        """Renew for ever; LeaseLost once that fails for too long."""
        while True:
            await asyncio.sleep(self._settings.renew)
            if not await self._try() and not self.held():
                raise LeaseLost("the Lease was not renewed in time")

    async def release(self) -> None:
        """Let another one take over without waiting."""
        if not self.held():
            return
        self._valid_until = 0.0
        try:
            live = await self._client.get(self._path())
            if live["spec"].get("holderIdentity") == self._identity:
                live["spec"] = {**live["spec"], "holderIdentity": "", "renewTime": _now()}
                await self._client.send("PUT", self._path(), body=live)
        except KubeError as error:
            _log.info("lease not released, it will expire", problem=str(error))

    def _path(self) -> str:
        return LEASES.path(self._namespace, self._settings.name)

    async def _try(self) -> bool:
        """Take or renew the Lease; whether it is ours."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.duration - _SAFETY):
                await self._take()
        except (TimeoutError, KubeError) as error:
            _log.debug("lease not taken", problem=str(error))
            return False
        # Counted from before the request: the API server wrote it no earlier than this.
        self._valid_until = started + self._settings.duration - _SAFETY
        return True

    async def _take(self) -> None:
        try:
            live = await self._client.get(self._path())
        except NotFound:
            body = {
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": self._settings.name, "namespace": self._namespace},
                "spec": self._spec({}),
            }  # fmt: skip
            await self._client.send("POST", LEASES.path(self._namespace), body=body)
            return
        spec = live.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._expired(live):
            raise Conflict(409, "Held", f"held by {holder}")
        live["spec"] = self._spec(spec)
        await self._client.send("PUT", self._path(), body=live)

    def _expired(self, live: dict[str, Any]) -> bool:
        mark, now = live["metadata"]["resourceVersion"], time.monotonic()
        if self._seen[0] != mark:
            self._seen = (mark, now)
        return now - self._seen[1] >= float((live.get("spec") or {}).get("leaseDurationSeconds") or 0)

    def _spec(self, former: dict[str, Any]) -> dict[str, Any]:
        ours = former.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._settings.duration),
            "acquireTime": former.get("acquireTime") if ours else _now(),
            "renewTime": _now(),
            "leaseTransitions": int(former.get("leaseTransitions") or 0) + (0 if ours else 1),
        }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
