"""Membership and placement: who caches which chunk.

The operator publishes a ring document to every worker; clients fetch it from any worker. Placement is
weighted rendezvous hashing (Thaler and Ravishankar 1998; the logarithmic weights are Schindelhauer and
Schomaker's): every member gets a score for a chunk and the highest owns it, so that a member that comes or
goes moves only its own share.
"""

import hashlib
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from forebay_protocol.errors import InvalidRequest
from forebay_protocol.keys import ChunkKey

_MASK = (1 << 64) - 1


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
        """Read a member; KeyError, TypeError or ValueError where the document is malformed."""
        return cls(
            id=str(raw["id"]),
            address=str(raw["address"]),
            data_port=int(raw["dataPort"]),
            control_port=int(raw["controlPort"]),
            node=str(raw.get("node", "")),
            zone=str(raw.get("zone", "")),
            pod_uid=str(raw.get("podUID", "")),
            state=MemberState(raw.get("state", "active")),
            capacity=int(raw.get("capacity", 1)),
        )


def _mix(value: int) -> int:
    """Finalise 64 bits so that every input bit reaches every output bit (Steele, Lea, Flood: SplitMix64)."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Ring:
    """The members at one epoch. A higher epoch replaces a lower one, never the other way round."""

    epoch: int
    layout: Layout = Layout.SHARDED
    members: tuple[Member, ...] = ()
    _active: tuple[tuple[int, float, Member], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare what every look-up needs: the active members with their seeds and weights."""
        active = tuple(
            (_seed(m.id), float(max(m.capacity, 1)), m) for m in self.members if m.state is MemberState.ACTIVE
        )
        object.__setattr__(self, "_active", active)

    def ranked(self, chunk: ChunkKey) -> tuple[Member, ...]:
        """All active members, the chunk's owner first, then who would own it without the ones before."""
        if len(self._active) < 2:
            return tuple(member for _, _, member in self._active)
        point = _mix(int(chunk.object_id[:16], 16) + chunk.number * 0x9E3779B97F4A7C15 & _MASK)
        scored = sorted(
            ((-weight / math.log((_mix(point ^ seed) + 1) / (_MASK + 2)), member.id, member)
             for seed, weight, member in self._active),
            key=lambda entry: entry[:2],
            reverse=True,
        )  # fmt: skip
        return tuple(member for _, _, member in scored)

    def owner(self, chunk: ChunkKey) -> Member | None:
        """Who fetches the chunk from the source, and holds it; None in a ring without active members."""
        ranked = self.ranked(chunk)
        return ranked[0] if ranked else None

    def member(self, member_id: str) -> Member | None:
        """The member of that name, whatever its state."""
        return next((member for member in self.members if member.id == member_id), None)

    def to_json(self) -> dict[str, Any]:
        """The ring document."""
        return {
            "epoch": self.epoch,
            "layout": self.layout.value,
            "members": [member.to_json() for member in self.members],
        }

    @classmethod
    def from_json(cls, raw: Any) -> "Ring":
        """Read a ring document; InvalidRequest says what is wrong with it."""
        try:
            return cls(
                epoch=int(raw["epoch"]),
                layout=Layout(raw.get("layout", "Sharded")),
                members=tuple(Member.from_json(member) for member in raw["members"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidRequest(f"malformed ring document: {error!r}") from error
