"""Limits toward a store: what one process may ask of it, and how processes divide it."""

import random
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.limits import OPEN, Gate, TokenBucket
from forebay_protocol.dataset import SourceLimits
from forebay_protocol.errors import Overloaded
from forebay_protocol.ring import Layout, Member, MemberState, Ring
from forebay_protocol.shares import counted_readers, reader_share, worker_share
from testkit.waiting import eventually


def test_a_bucket_never_spends_more_than_its_rate() -> None:
    """Requests of all sizes at random times, pauses among them: since each of them, no more than the rate."""
    chance = random.Random(5)
    bucket, rate, now = TokenBucket(), 100.0, 0.0
    first_asked = now
    begin, spent = [], []
    for _ in range(2000):
        count = chance.uniform(1, 100)
        begin.append(bucket.turn(count, rate, now))
        spent.append(count)
        bucket.spend(count, rate, now)
        now += chance.choice([0.0, 0.001, 0.3, 3.0])

    assert begin == sorted(begin)
    assert begin[0] == pytest.approx(first_asked + spent[0] / rate)
    for first in range(0, len(spent), 7):
        total = 0.0
        for at, count in zip(begin[first + 1 : first + 200], spent[first + 1 : first + 200], strict=True):
            total += count
            assert total <= rate * (at - begin[first]) + 1e-6


def test_what_is_dear_begins_after_a_second_and_the_next_one_waits_for_the_rest() -> None:
    """However low a limit is, it delays a read and does not forbid it."""
    bucket = TokenBucket()
    assert bucket.turn(500, 100.0, 10.0) == 11.0
    bucket.spend(500, 100.0, 10.0)
    assert (bucket.is_free(14.9), bucket.is_free(15.0)) == (False, True)
    assert bucket.turn(10, 100.0, 12.0) == pytest.approx(15.1)


@pytest.mark.parametrize("limits", [SourceLimits(bandwidth=20_000), SourceLimits(requests_per_second=40)])
def test_requests_wait_for_their_turn(limits: SourceLimits) -> None:
    """Half a limit for this process: requests of 500 bytes come every 50 ms, by bytes or by their number."""
    gate = Gate(limits, lambda: 0.5)
    begin = time.monotonic()
    for _ in range(8):
        with gate.request(500):
            pass
    assert time.monotonic() - begin >= 8 * 0.05


def test_connections_are_held_until_the_answer_ends() -> None:
    """A third request waits for one of two to end; a part of a connection is a whole one."""
    gate = Gate(SourceLimits(connections=4), lambda: 0.5)
    ended, began = threading.Event(), threading.Event()

    def ask() -> None:
        with gate.request(1):
            began.set()
            ended.wait(10)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: not gate.is_free, timeout=10, what="both are taken", interval=0.01)
    began.clear()
    third = threading.Thread(target=ask)
    third.start()
    assert not began.wait(0.1)
    ended.set()
    assert began.wait(10)
    for thread in (*threads, third):
        thread.join(10)
    with Gate(SourceLimits(connections=1), lambda: 0.01).request(1):
        pass


def test_who_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody hangs on a limit for ever."""
    monkeypatch.setattr("forebay.limits.PATIENCE", 1.5)
    gate = Gate(SourceLimits(bandwidth=1))
    with gate.request(1000):
        assert not gate.is_free
    with pytest.raises(Overloaded, match="limits"), gate.request(1):
        pass


def test_without_limits_nobody_waits() -> None:
    """The open gate is always free."""
    with OPEN.request(1 << 40), OPEN.request(1 << 40):
        assert OPEN.is_free


def ring(active: int, readers: int) -> Ring:
    """A ring with so many active members, one that joins, and so many reading nodes."""
    states = [MemberState.ACTIVE] * active + [MemberState.JOINING]
    members = tuple(
        Member(id=f"w-{number}", address="", data_port=1, control_port=2, state=state)
        for number, state in enumerate(states)
    )
    return Ring(1, Layout.SHARDED, members, readers)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 5000))
def test_the_shares_never_add_up_to_more_than_the_whole(active: int, nodes: int) -> None:
    """Workers and nodes that read by themselves together, whatever their numbers; and hardly anything is wasted."""
    told = counted_readers(nodes)
    seen = ring(active, told)

    total = active * worker_share(seen) + nodes * reader_share(seen, 1)

    assert nodes <= told < max(2, 2 * nodes)
    assert total <= 1 + 1e-9
    assert total >= 0.9 - 1e-9 or (not active and total >= min(nodes, 0.5))


@pytest.mark.parametrize(("known", "wanted"), [(lambda: ring(0, 0), 0.25), (lambda: ring(2, 0), 0.025)])
def test_without_a_rings_word_the_number_at_staging_counts(known: Callable[[], Ring], wanted: float) -> None:
    """A Dataset without a Runtime has no ring at all."""
    assert reader_share(known(), 4) == pytest.approx(wanted)
