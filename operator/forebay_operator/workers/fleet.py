"""All workers of all Runtimes as last heard of."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from forebay_operator.reconcile.plan import RingOrder
from forebay_operator.workers.client import Approach, WorkersClient, token_for, verified_by
from forebay_protocol.control import LoadProgress, LoadRequest, WorkerStatus
from forebay_protocol.ring import Member

_TOLERATED_SILENCE = 3
"""Polls that a worker may miss before its last report counts no more: one slow answer is not an outage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAccess:
    """How to reach a Runtime's workers: their addresses by name, what signs the tokens, and what verifies them.

    ``authority`` is empty where they speak no TLS; ``host`` is the name that their certificate is for.
    """

    dataset_uid: str
    key: bytes
    addresses: Mapping[str, str]
    host: str
    authority: str

    def approach(self) -> Approach:
        """A fresh token, and TLS where they speak it."""
        tls = verified_by(self.authority, self.host) if self.authority else None
        return Approach(token_for(self.key, self.dataset_uid), tls)


class _Heard(NamedTuple):
    """The last report of a worker, the address that gave it, and how many polls it has missed since."""

    report: WorkerStatus
    address: str
    missed: int


class Change(Enum):
    """How reports differ from those before: not at all, in counters of served bytes, or in what workers hold."""

    NONE = 0
    TRAFFIC = 1
    STANDING = 2


def _standing(heard: Mapping[str, _Heard]) -> dict[str, tuple[object, ...]]:
    """What the workers hold and lack. Counters of bytes served move with every read and are no change of this."""
    return {
        worker: (
            report.epoch,
            report.dataset_revision,
            report.index,
            report.tiers,
            report.cached_bytes,
            report.keys,
            report.problems,
        )
        for worker, (report, _, _) in heard.items()
    }


class Fleet:
    """Asks workers and remembers their answers."""

    def __init__(self, client: WorkersClient) -> None:
        self._client = client
        self._heard: dict[tuple[str, str], dict[str, _Heard]] = {}

    def reports(self, namespace: str, name: str) -> dict[str, WorkerStatus]:
        """The last report of each worker of the Runtime that still answers."""
        return {worker: heard.report for worker, heard in self._heard.get((namespace, name), {}).items()}

    async def poll(self, namespace: str, name: str, access: WorkerAccess | None) -> Change:
        """Ask every worker of the Runtime; how the answers differ from those before."""
        before = self._heard.get((namespace, name), {})
        after: dict[str, _Heard] = {}
        if access is not None and access.addresses:
            approach = access.approach()
            places = list(access.addresses.items())
            answers = await asyncio.gather(*(self._client.status(address, approach) for _, address in places))
            for (worker, address), answer in zip(places, answers, strict=True):
                former = before.get(worker)
                if answer is not None:
                    after[worker] = _Heard(answer, address, 0)
                elif former and former.address == address and former.missed + 1 < _TOLERATED_SILENCE:
                    after[worker] = former._replace(missed=former.missed + 1)
        if after:
            self._heard[namespace, name] = after
        else:
            self._heard.pop((namespace, name), None)
        if _standing(before) != _standing(after):
            return Change.STANDING
        same = [heard.report for heard in before.values()] == [heard.report for heard in after.values()]
        return Change.NONE if same else Change.TRAFFIC

    async def publish(self, access: WorkerAccess, order: RingOrder) -> None:
        """Hand the ring to the members that lack it; who misses it is asked again at the next look."""
        approach = access.approach()
        await asyncio.gather(*(self._client.put_ring(member.address, approach, order.ring) for member in order.behind))

    async def load(
        self, access: WorkerAccess, members: tuple[Member, ...], load_id: str, request: LoadRequest
    ) -> dict[str, LoadProgress]:
        """Ask all members for a load; how far each is that answers."""
        approach = access.approach()
        answers = await asyncio.gather(
            *(self._client.put_load(member.address, approach, load_id, request) for member in members)
        )
        return {member.id: answer for member, answer in zip(members, answers, strict=True) if answer is not None}

    async def forget_load(self, access: WorkerAccess, load_id: str) -> None:
        """Tell all workers that a load is of no interest any more."""
        approach = access.approach()
        await asyncio.gather(
            *(self._client.delete_load(address, approach, load_id) for address in access.addresses.values())
        )
