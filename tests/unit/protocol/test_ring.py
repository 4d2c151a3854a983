"""Placement: even, stable, and the same for everybody."""

from collections import Counter
from dataclasses import replace

import pytest

from forebay_protocol.errors import InvalidRequest
from forebay_protocol.keys import ChunkKey, ObjectVersion
from forebay_protocol.ring import Layout, Member, MemberState, Ring

CHUNKS = [
    ChunkKey(ObjectVersion("uid", "data", f"shard-{n}", "v", 1).object_id, number)
    for n in range(200)
    for number in range(20)
]


def _members(count: int, capacity: int = 1) -> tuple[Member, ...]:
    return tuple(
        Member(id=f"worker-{n}", address=f"10.0.0.{n}", data_port=1, control_port=2, capacity=capacity)
        for n in range(count)
    )


def test_shares_are_even() -> None:
    """Equal members own equal shares, within what 4,000 chunks allow."""
    ring = Ring(1, members=_members(4))
    shares = Counter(ring.ranked(chunk)[0].id for chunk in CHUNKS)

    assert all(850 < share < 1150 for share in shares.values())


def test_shares_follow_capacity() -> None:
    """A member with three times the capacity owns three times the chunks."""
    small, big = _members(2)
    ring = Ring(1, members=(small, replace(big, capacity=3)))
    shares = Counter(ring.ranked(chunk)[0].id for chunk in CHUNKS)

    assert 2.6 < shares["worker-1"] / shares["worker-0"] < 3.4


def test_a_new_member_only_takes() -> None:
    """Chunks move to the new member or not at all, and only its share moves."""
    before, after = Ring(1, members=_members(4)), Ring(2, members=_members(5))
    moved = [chunk for chunk in CHUNKS if before.owner(chunk) != after.owner(chunk)]

    assert {after.ranked(chunk)[0].id for chunk in moved} == {"worker-4"}
    assert len(moved) < len(CHUNKS) * 0.25


def test_without_the_owner_the_next_in_rank_owns() -> None:
    """Clients fall back to whom the ring will name once the owner is gone."""
    members = _members(5)
    for chunk in CHUNKS[:50]:
        first, second, *_ = Ring(1, members=members).ranked(chunk)
        rest = tuple(member for member in members if member.id != first.id)

        assert Ring(2, members=rest).owner(chunk) == second


def test_only_active_members_own() -> None:
    """A joining or draining member is reachable but owns nothing."""
    active, joining = _members(2)
    ring = Ring(1, members=(active, replace(joining, state=MemberState.JOINING)))

    assert {ring.owner(chunk) for chunk in CHUNKS} == {active}
    assert ring.member("worker-1") is not None
    assert Ring(1).owner(CHUNKS[0]) is None


def test_placement_does_not_change_between_releases() -> None:
    """Two versions of Forebay that disagree would fetch everything twice: these owners are pinned."""
    ring = Ring(1, members=_members(8))

    assert [ring.ranked(chunk)[0].id[-1] for chunk in CHUNKS[:24]] == list(PINNED)


def test_the_document_reads_back() -> None:
    """What the operator publishes is what a worker understands."""
    ring = Ring(7, Layout.REPLICATED, _members(3))

    assert Ring.from_json(ring.to_json()) == ring


@pytest.mark.parametrize(
    "raw", [None, [], {}, {"epoch": 1}, {"epoch": "x", "members": []}, {"epoch": 1, "members": [{}]}]
)
def test_a_malformed_document_is_refused(raw: object) -> None:
    """Nothing half-read is ever acted on."""
    with pytest.raises(InvalidRequest):
        Ring.from_json(raw)


PINNED = "212205141533067057722475"
