"""A load's flights: bounded, and not held up by the slowest."""

import threading

from forebay_protocol.errors import SourceUnavailable
from forebay_worker.arrival import Arrival
from forebay_worker.loads import _IN_FLIGHT, _UnderWay


def test_whichever_ends_makes_room_for_the_next() -> None:
    """Not only the one that began first; what failed is told in the end."""
    flights = _UnderWay()
    arrivals = [Arrival() for _ in range(_IN_FLIGHT + 1)]
    for arrival in arrivals[:-1]:
        assert flights.has_room()
        flights.add(arrival)
    room = threading.Event()

    def another() -> None:
        flights.has_room()
        room.set()
        flights.add(arrivals[-1])

    waiter = threading.Thread(target=another)
    waiter.start()
    assert not room.is_set()

    arrivals[_IN_FLIGHT // 2].end(SourceUnavailable("the store went away"))

    assert room.wait(10)
    waiter.join(10)
    for arrival in arrivals:
        if arrival is not arrivals[_IN_FLIGHT // 2]:
            arrival.end(None)
    assert flights.settle() == {SourceUnavailable.reason: "the store went away"}


def test_a_flight_that_is_over_already_counts_too() -> None:
    """It may end before anybody asks how it went."""
    flights, arrival = _UnderWay(), Arrival()
    arrival.end(None)

    flights.add(arrival)

    assert flights.settle() == {}
