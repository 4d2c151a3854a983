"""A chunk on its way into memory: who gets which part of it, and when."""

import os
import threading

import pytest

from forebay_protocol.errors import SourceUnavailable
from forebay_protocol.keys import BLOCK_SIZE, Span
from forebay_worker.arrival import Arrival, Part
from forebay_worker.budget import Slots
from forebay_worker.singleflight import Flights
from forebay_worker.store.checksums import block_sums

BODY = os.urandom(3 * BLOCK_SIZE + 100)


def _begun() -> tuple[Arrival, memoryview]:
    arrival, buffer = Arrival(), memoryview(bytearray(BODY))
    arrival.begin(buffer, "store")
    return arrival, buffer


@pytest.mark.parametrize(
    ("count", "blocks"), [(BLOCK_SIZE - 1, 0), (BLOCK_SIZE, 1), (3 * BLOCK_SIZE + 99, 3), (len(BODY), 4)]
)
def test_only_whole_blocks_that_are_there_are_given(count: int, blocks: int) -> None:
    """With their checksums; a block that is still coming is waited for."""
    arrival, _ = _begun()

    arrival.arrived(count)

    end = min(blocks * BLOCK_SIZE, len(BODY))
    if blocks:
        part = arrival.part(0, end, 0)
        assert bytes(part.data) == BODY[:end]
        assert part.sums == block_sums(memoryview(BODY[:end]))
        assert arrival.part(end - 10, 10, 0).data == BODY[end - 10 : end]
    if end < len(BODY):
        with pytest.raises(SourceUnavailable):
            arrival.part(end, 1, 0)


def test_a_flight_that_fails_takes_nothing_back() -> None:
    """Who has a part keeps it; who comes later gets the error."""
    arrival, _ = _begun()
    arrival.arrived(BLOCK_SIZE)
    part = arrival.part(0, BLOCK_SIZE, 0)

    arrival.withdraw()
    arrival.end(SourceUnavailable("the store went away"))

    assert bytes(part.data) == BODY[:BLOCK_SIZE]
    with pytest.raises(SourceUnavailable, match="went away"):
        arrival.part(0, BLOCK_SIZE, 0)


def test_what_is_void_is_given_to_nobody_any_more() -> None:
    """The bytes come again, and their checksums are made anew."""
    arrival, buffer = _begun()
    arrival.arrived(2 * BLOCK_SIZE)

    arrival.arrived(0)

    with pytest.raises(SourceUnavailable):
        arrival.part(0, BLOCK_SIZE, 0)
    buffer[:] = bytes(len(BODY))
    arrival.arrived(len(BODY))
    assert arrival.part(0, len(BODY), 0).sums == block_sums(memoryview(bytes(len(BODY))))


def test_another_flight_takes_over() -> None:
    """Who waits gets its parts from there, and its error."""
    arrival, _ = _begun()
    other, _ = _begun()
    arrival.withdraw()
    arrival.follow(other)

    other.arrived(BLOCK_SIZE)

    assert arrival.part(0, BLOCK_SIZE, 0).data == BODY[:BLOCK_SIZE]
    other.end(SourceUnavailable("the store went away"))
    with pytest.raises(SourceUnavailable, match="went away"):
        arrival.part(BLOCK_SIZE, BLOCK_SIZE, 0)


def test_who_fetches_for_itself_is_handed_its_range_on_the_way() -> None:
    """Once, as soon as it is there, and before the flight goes on."""
    flights = Flights()
    given: list[Part] = []

    def work(arrival: Arrival) -> None:
        arrival.begin(memoryview(bytearray(BODY)), "store")
        arrival.arrived(BLOCK_SIZE)
        assert not given
        arrival.arrived(2 * BLOCK_SIZE)
        assert [bytes(part.data) for part in given] == [BODY[BLOCK_SIZE : 2 * BLOCK_SIZE]]
        assert given[0].sums == block_sums(given[0].data)
        arrival.arrived(len(BODY))

    flights.lead("key", Span(BLOCK_SIZE, BLOCK_SIZE), given.append, work).wait(0)

    assert len(given) == 1
    assert len(flights) == 0


def test_slots_are_handed_out_up_to_their_number() -> None:
    """Who only tries is refused, who waits gets the next that is free."""
    slots = Slots(1)
    assert slots.try_take()
    assert not slots.try_take()
    waiter = threading.Thread(target=slots.take)
    waiter.start()

    slots.give()

    waiter.join(10)
    assert not waiter.is_alive()
    assert not slots.try_take()
