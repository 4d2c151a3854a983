"""Membership and placement: who caches which chunk.

The operator publishes a ring document to every worker; clients fetch it from any worker. Placement is
consistent hashing (Karger et al. 1997): every active member has points on a circle of 64 bits, in number by its
capacity, and a chunk belongs to the member whose point comes next after the chunk's own. A member that comes or
goes moves only its own share, and a look-up is one binary search however many members there are.
"""

import hashlib
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

from forebay_protocol.errors import InvalidRequest
from forebay_protocol.keys import ChunkKey

_MASK = (1 << 64) - 1
_PORTS = (1 << 16) - 1
_STRIDE = 0x9E3779B97F4A7C15

POINTS = 1024
"""Points of the member with the most capacity: shares then deviate by 3 % (one standard deviation)."""

_DIGEST_POINTS = 8
_OWNER_BITS = 16
_OWNER_MASK = (1 << _OWNER_BITS) - 1
_MOST_MEMBERS = 1 << _OWNER_BITS


class MemberState(StrEnum):
    """A member owns chunks only while it is active."""

    JOINING = "joining"
    ACTIVE = "active"
    DRAINING = "draining"


class Layout(StrEnum):
    """Sharded: every chunk has one home and capacity adds up. Replicated: every worker holds all."""

    SHARDED = "Sharded"
    REPLICATED = "Replicated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One cache worker. ``id`` is its stable name, ``pod_uid`` tells a replaced pod apart; ports are TCP ports."""

    id: str
    address: str
    data_port: int
    control_port: int
    node: str = ""
    zone: str = ""
    pod_uid: str = ""
    state: MemberState = MemberState.ACTIVE
    capacity: int = 1

    def to_json(self) -> dict[str, Any]:
        """The member as the ring document shows it."""
        return {
            "id": self.id,
            "address": self.address,
            "dataPort": self.data_port,
            "controlPort": self.control_port,
            "node": self.node,
            "zone": self.zone,
            "podUID": self.pod_uid,
            "state": self.state.value,
            "capacity": self.capacity,
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Member":
        """Read a member; KeyError, TypeError, ValueError or OverflowError where the document is malformed."""
        return cls(
            id=str(raw["id"]),
            address=str(raw["address"]),
            data_port=_within(raw["dataPort"], _PORTS),
            control_port=_within(raw["controlPort"], _PORTS),
            node=str(raw.get("node", "")),
            zone=str(raw.get("zone", "")),
            pod_uid=str(raw.get("podUID", "")),
            state=MemberState(raw.get("state", "active")),
            capacity=_within(raw.get("capacity", 1), _MASK),
        )


def _within(raw: Any, most: int) -> int:
    """The number, where it is one that everybody can send on."""
    value = int(raw)
    if not 0 <= value <= most:
        raise ValueError(f"{value} does not lie between 0 and {most}")
    return value


def _mix(value: int) -> int:
    """Finalise 64 bits so that every input bit reaches every output bit (Steele, Lea, Flood: SplitMix64)."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@lru_cache(maxsize=4096)
def _points_of(member_id: str) -> "array[int]":
    """A member's places on the circle; with less capacity it takes only the first of them."""
    points = array("Q")  # as a list a thousand members would cost a mount 40 MiB
    for number in range(POINTS // _DIGEST_POINTS):
        digest = hashlib.blake2b(member_id.encode(), digest_size=64, salt=number.to_bytes(2, "big")).digest()
        points.extend(struct.unpack(">8Q", digest))
    return points


@dataclass(frozen=True)
class Ring:
    """The members at one epoch. A higher epoch replaces a lower one, never the other way round."""

    epoch: int
    layout: Layout = Layout.SHARDED
    members: tuple[Member, ...] = ()
    readers: int = 0
    """How many nodes read the Dataset, rounded up (see `shares`); 0 where its mounts have no limits."""

    @cached_property
    def _active(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.state is MemberState.ACTIVE)

    @cached_property
    def _circle(self) -> "array[int]":
        """All points in order; the lowest bits of each say which active member it belongs to."""
        most = max(max(member.capacity, 1) for member in self._active)
        points: list[int] = []
        for owner, member in enumerate(self._active):
            count = max(1, POINTS * max(member.capacity, 1) // most)
            points.extend(point & ~_OWNER_MASK | owner for point in _points_of(member.id)[:count])
        points.sort()
        return array("Q", points)

    def _next_point(self, chunk: ChunkKey) -> int:
        """Where in the circle the first point at or after the chunk's own is; its length where none is."""
        return bisect_left(self._circle, _mix(int(chunk.object_id[:16], 16) + chunk.number * _STRIDE & _MASK))

    def _walk(self, chunk: ChunkKey) -> Iterator[Member]:
        """The active members in the order in which their points follow the chunk's, each once."""
        circle, active = self._circle, self._active
        start = self._next_point(chunk)
        seen: set[int] = set()
        for position in range(start, start + len(circle)):
            owner = circle[position % len(circle)] & _OWNER_MASK
            if owner not in seen:
                seen.add(owner)
                yield active[owner]
                if len(seen) == len(active):
                    return

    @property
    def active_count(self) -> int:
        """How many members own chunks."""
        return len(self._active)

    def ranked(self, chunk: ChunkKey, most: int | None = None) -> tuple[Member, ...]:
        """The active members, ``most`` of them at most: the owner first, then who would own the chunk without those."""
        if len(self._active) < 2:
            return self._active[:most]
        return tuple(islice(self._walk(chunk), most))

    def owner(self, chunk: ChunkKey) -> Member | None:
        """Who fetches the chunk from the source, and holds it; None in a ring without active members."""
        if len(self._active) < 2:
            return next(iter(self._active), None)
        circle = self._circle
        return self._active[circle[self._next_point(chunk) % len(circle)] & _OWNER_MASK]

    def member(self, member_id: str) -> Member | None:
        """The member of that name, whatever its state."""
        return next((member for member in self.members if member.id == member_id), None)

    def to_json(self) -> dict[str, Any]:
        """The ring document."""
        return {
            "epoch": self.epoch,
            "layout": self.layout.value,
            "members": [member.to_json() for member in self.members],
            **({"readers": self.readers} if self.readers else {}),
        }

    @classmethod
    def from_json(cls, raw: Any) -> "Ring":
        """Read a ring document; InvalidRequest says what is wrong with it."""
        try:
            if len(raw["members"]) > _MOST_MEMBERS:
                raise InvalidRequest(f"a ring has at most {_MOST_MEMBERS} members")
            return cls(
                epoch=_within(raw["epoch"], _MASK >> 1),
                layout=Layout(raw.get("layout", "Sharded")),
                members=tuple(Member.from_json(member) for member in raw["members"]),
                readers=int(raw.get("readers", 0)),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InvalidRequest(f"malformed ring document: {error!r}") from error
