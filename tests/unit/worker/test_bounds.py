"""The small parts that keep a worker within bounds: memory, single flight, the window of the hit ratio."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from forebay_protocol.errors import InvalidRequest, Overloaded, SourceUnavailable
from forebay_protocol.keys import BLOCK_SIZE, CHUNK_SIZE, ObjectVersion
from forebay_worker.arrival import Arrival
from forebay_worker.budget import MemoryBudget
from forebay_worker.metrics import Metrics
from forebay_worker.serve.data import check_range
from forebay_worker.singleflight import Flights
from forebay_worker.window import WINDOW, ServedWindow


def test_memory_is_handed_out_up_to_the_limit() -> None:
    """Who comes too late is told to go elsewhere; what is given back can be taken again."""
    budget = MemoryBudget(100, Metrics())
    budget.take(60, 0)
    with pytest.raises(Overloaded):
        budget.take(50, 0)

    budget.give(60)

    budget.take(50, 0)


def test_something_larger_than_the_whole_budget_passes_alone() -> None:
    """Otherwise it would wait for ever."""
    budget = MemoryBudget(100, Metrics())
    budget.take(500, 0)

    with pytest.raises(Overloaded):
        budget.take(1, 0)


def test_who_waits_for_memory_gets_it_when_it_is_free() -> None:
    """A waiter goes on as soon as there is room."""
    budget = MemoryBudget(100, Metrics())
    budget.take(100, 0)
    waiter = threading.Thread(target=lambda: budget.take(100, 10))
    waiter.start()

    budget.give(100)

    waiter.join(timeout=5)
    assert not waiter.is_alive()


def test_the_same_work_runs_once_while_it_runs() -> None:
    """All who ask meanwhile get the one result; later ones start anew."""
    flights = Flights()
    gate, runs = threading.Event(), []

    def work(arrival: Arrival) -> None:
        gate.wait(5)
        runs.append(1)
        arrival.begin(memoryview(bytes([len(runs)])), "store")
        arrival.arrived(1)

    with ThreadPoolExecutor(2) as executor:
        arrivals = [flights.start("key", executor, work) for _ in range(20)]
        gate.set()
        assert {bytes(arrival.part(0, 1, 5).data) for arrival in arrivals} == {b"\1"}
        arrivals[0].wait(5)
        assert bytes(flights.start("key", executor, work).part(0, 1, 5).data) == b"\2"


def test_an_error_goes_to_all_and_is_not_kept() -> None:
    """The next one tries again."""
    flights, fails = Flights(), [True]

    def work(arrival: Arrival) -> None:
        arrival.begin(memoryview(b"x"), "store")
        if fails:
            raise SourceUnavailable("once")
        arrival.arrived(1)

    with ThreadPoolExecutor(1) as executor:
        arrivals = [flights.start("key", executor, work) for _ in range(2)]
        for arrival in arrivals:
            with pytest.raises(SourceUnavailable):
                arrival.part(0, 1, 5)
        fails.clear()
        assert bytes(flights.start("key", executor, work).part(0, 1, 5).data) == b"x"
        arrivals[0] = flights.start("key", executor, work)
        arrivals[0].wait(5)
        assert len(flights) == 0


def test_the_window_forgets() -> None:
    """Old bytes fall out of the hit ratio's base."""
    now = [0.0]
    window = ServedWindow(lambda: now[0])
    window.add(10, hit=True)
    now[0] = 100.0
    window.add(5, hit=False)
    assert window.totals() == (10, 5)

    now[0] = WINDOW + 50.0

    assert window.totals() == (0, 5)


@pytest.mark.parametrize(
    ("offset", "length", "allowed"),
    [
        (0, CHUNK_SIZE, True),
        (BLOCK_SIZE, BLOCK_SIZE, True),
        (CHUNK_SIZE, 1000, True),
        (CHUNK_SIZE, 999, False),
        (0, CHUNK_SIZE + BLOCK_SIZE, False),
        (1, BLOCK_SIZE, False),
        (0, 0, False),
        (0, 100, False),
        (2 * CHUNK_SIZE, BLOCK_SIZE, False),
    ],
)
def test_ranges_keep_to_blocks_within_one_chunk(offset: int, length: int, allowed: bool) -> None:
    """As the protocol demands; anything else is the caller's mistake."""
    one = ObjectVersion("uid", "m", "key", "v", CHUNK_SIZE + 1000)
    if allowed:
        check_range(one, offset, length)
        return

    with pytest.raises(InvalidRequest):
        check_range(one, offset, length)
