"""Single flight on executors: whoever wants the same chunk at the same time shares one fetching of it."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future

from forebay_protocol.errors import WorkerUnavailable
from forebay_worker.arrival import Arrival, Condition

Work = Callable[[Arrival], None]
"""Fetches a chunk and says to its arrival how far that has come."""


class Flights:
    """Chunks under way by key. Unlike ``forebay.flight`` nobody's thread does the work for the others."""

    def __init__(self, condition: Callable[[], Condition] = threading.Condition) -> None:
        """Nothing is under way. ``condition`` makes what those wait at who want a chunk."""
        self._lock = threading.Lock()
        self._condition = condition
        self._flights: dict[Hashable, Arrival] = {}

    def start(self, key: Hashable, executor: Executor, work: Work) -> Arrival:
        """The flight under way, or a new one."""
        with self._lock:
            arrival = self._flights.get(key)
            if arrival is not None:
                return arrival
            arrival = Arrival(self._condition)
            future = executor.submit(self._fly, key, arrival, work)
            self._flights[key] = arrival
        # Outside of the lock: a flight that has ended already calls back at once, in this thread.
        future.add_done_callback(lambda done: self._cancelled(key, arrival, done))
        return arrival

    def _fly(self, key: Hashable, arrival: Arrival, work: Work) -> None:
        error: BaseException | None = None
        try:
            work(arrival)
        except BaseException as problem:  # noqa: BLE001 - not handled here: handed to everyone who waits
            error = problem
        self._end(key, arrival, error)

    def _cancelled(self, key: Hashable, arrival: Arrival, done: "Future[None]") -> None:
        if done.cancelled():
            self._end(key, arrival, WorkerUnavailable("this worker stops; ask another one"))

    def _end(self, key: Hashable, arrival: Arrival, error: BaseException | None) -> None:
        # First: whoever learns of the end and asks again begins anew.
        with self._lock:
            del self._flights[key]
        arrival.end(error)

    def __len__(self) -> int:
        return len(self._flights)
