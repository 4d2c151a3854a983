"""Ranges that come in several attempts: what has arrived stays, what is wrong as a whole comes anew."""

import os

import pytest

from forebay.limits import OPEN
from forebay.source.base import Arrived
from forebay.source.deadline import Deadline
from forebay.source.hedge import HedgeBudget, Hedges, LatencyRecord
from forebay.source.http_client import Attempt
from forebay.source.http_connection import Head
from forebay.source.meter import Meter
from forebay.source.reads import Reads
from forebay_protocol.errors import SourceInvalid, SourceUnavailable
from testkit.waiting import eventually

BODY = os.urandom(1000)
HEAD = Head(206, {}, len(BODY), chunked=False, keep_alive=True)


class _Store:
    """Breaks off after so many bytes of each answer."""

    def __init__(self, *cuts: int) -> None:
        self.asked: list[int] = []
        self._cuts = list(cuts)

    def fetch(self, within: int, buffer: memoryview, _limit: Deadline, _one: Attempt, arrived: Arrived) -> Head:
        """One request."""
        self.asked.append(within)
        cut = self._cuts.pop(0) if self._cuts else len(buffer)
        buffer[:cut] = BODY[within : within + cut]
        if cut:
            arrived(cut)
        if cut < len(buffer):
            raise SourceUnavailable("broke off")
        return HEAD


def test_only_the_rest_is_asked_for_again() -> None:
    """Whatever arrives is told once, in order."""
    store, buffer = _Store(300, 0, 200), bytearray(len(BODY))
    told: list[int] = []

    Reads(Meter(), OPEN).fill(memoryview(buffer), store.fetch, told.append)

    assert bytes(buffer) == BODY
    assert store.asked == [0, 300, 300, 500]
    assert told == [300, 500, 1000]


def test_a_range_that_fails_its_check_comes_anew_as_a_whole() -> None:
    """And is not told to be there before it has passed."""
    store, verdicts = _Store(300), [SourceInvalid("a flipped bit"), None]
    told: list[int] = []

    def check(head: Head, whole: memoryview) -> None:
        assert (head, bytes(whole)) == (HEAD, BODY)
        assert len(BODY) not in told
        verdict = verdicts.pop(0)
        if verdict is not None:
            raise verdict

    Reads(Meter(), OPEN).fill(memoryview(bytearray(len(BODY))), store.fetch, told.append, check)

    assert store.asked == [0, 300, 0]
    assert told == [300, 0, 1000]


def test_a_hedge_leaves_what_was_told_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request brings all of the range; of that only what the first one had not brought is taken."""
    monkeypatch.setattr(LatencyRecord, "long", 0.0)
    monkeypatch.setattr(HedgeBudget, "take", lambda _: True)
    hedges, buffer = Hedges(Meter(), OPEN), bytearray(len(BODY))
    told: list[int] = []
    hedges.run(memoryview(bytearray(len(BODY))), lambda _into, _one, _arrived: HEAD, told.append)

    def fetch(into: memoryview, one: Attempt, arrived: Arrived) -> Head:
        if into.obj is not buffer:
            into[:] = BODY
            return HEAD
        into[:300] = b"1" * 300
        arrived(300)
        into[300:400] = b"2" * 100
        while not one.given_up:
            pass
        raise SourceUnavailable("given up")

    try:
        assert hedges.run(memoryview(buffer), fetch, told.append) == HEAD
    finally:
        hedges.close()
    assert bytes(buffer) == b"1" * 300 + BODY[300:]
    assert told == [300, 1000]


def test_the_winner_of_a_race_ends_the_loser(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first request that hangs until it is given up has no other end."""
    monkeypatch.setattr(LatencyRecord, "long", 0.0)
    monkeypatch.setattr(HedgeBudget, "take", lambda _: True)
    hedges, buffer = Hedges(Meter(), OPEN), bytearray(len(BODY))
    attempts: dict[str, Attempt] = {}
    # The first of a size is not watched: nothing is known of it.
    hedges.run(memoryview(bytearray(len(BODY))), lambda _into, _one, _arrived: HEAD, lambda _: None)

    def fetch(into: memoryview, one: Attempt, arrived: Arrived) -> Head:
        is_first = into.obj is buffer
        attempts["first" if is_first else "second"] = one
        if is_first:
            eventually(lambda: one.given_up, timeout=10, interval=0.01, what="the loser is given up")
            raise SourceUnavailable("given up")
        into[:] = BODY
        arrived(len(into))
        return HEAD

    hedges.run(memoryview(buffer), fetch, lambda _: None)

    assert bytes(buffer) == BODY
    assert {name: one.given_up for name, one in attempts.items()} == {"first": True, "second": False}
    hedges.close()
