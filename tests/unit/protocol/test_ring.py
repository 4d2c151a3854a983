"""Placement: even, stable, and the same for everybody."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(capacities=st.lists(st.integers(1, 64), min_size=1, max_size=12), joining=st.integers(1, 64), data=st.data())
def test_changes_move_only_what_they_must(capacities: list[int], joining: int, data: st.DataObject) -> None:
    """Whatever the capacities: who comes (and is not the largest ever) only takes, who goes only gives."""
    members = tuple(
        replace(one, capacity=capacity)
        for one, capacity in zip(_members(len(capacities)), capacities, strict=True)
    )  # fmt: skip
    largest = replace(members[0], id="largest", capacity=64)
    new = replace(members[0], id="new", capacity=joining)
    before = Ring(1, members=(largest, *members))
    after = Ring(2, members=(new, *data.draw(st.permutations([largest, *members]))))

    for chunk in CHUNKS[:100]:
        assert before.owner(chunk) == after.owner(chunk) or after.owner(chunk) == new
        assert after.ranked(chunk, 2) == after.ranked(chunk)[:2]
        assert after.owner(chunk) == after.ranked(chunk)[0]


def test_shares_of_many_members_are_even() -> None:
    """With 100 members nobody owns much more than a hundredth."""
    ring = Ring(1, members=_members(100))
    shares = Counter(ring.owner(ChunkKey(CHUNKS[0].object_id, number)) for number in range(100_000))

    assert max(shares.values()) < 1200
    assert min(shares.values()) > 800


def test_without_the_owner_the_next_in_rank_owns() -> None:
    """Clients fall back to whom the ring will name once the owner is gone."""
    members = _members(5)
    for chunk in CHUNKS[:50]:
        first, second, *_ = Ring(1, members=members).ranked(chunk)
        rest = tuple(member for member in members if member.id != first.id)

        assert Ring(2, members=rest).owner(chunk) == second


def test_only_active_members_own() -> None:
    """A joining or draining member is reachable but owns nothing."""
    active, joining, draining = _members(3)
    others = (replace(joining, state=MemberState.JOINING), replace(draining, state=MemberState.DRAINING))
    ring = Ring(1, members=(active, *others))

    assert {ring.owner(chunk) for chunk in CHUNKS} == {active}
    assert (ring.member("worker-1"), ring.member("worker-2")) == others
    assert Ring(1).owner(CHUNKS[0]) is None


def test_placement_does_not_change_between_releases() -> None:
    """Two versions of Forebay that disagree would fetch everything twice: these owners are pinned."""
    ring = Ring(1, members=_members(8))

    assert [ring.ranked(chunk)[0].id[-1] for chunk in CHUNKS[:24]] == list(PINNED)


def test_a_ring_of_too_many_members_is_refused() -> None:
    """Points on the circle name their owner in 16 bits."""
    raw = Ring(1, members=_members(1)).to_json()

    with pytest.raises(InvalidRequest, match="at most"):
        Ring.from_json({**raw, "members": raw["members"] * 65_537})


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


PINNED = "570337323340571231647605"
