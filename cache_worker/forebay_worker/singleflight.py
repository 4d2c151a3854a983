"""Single flight: whoever wants the same chunk at the same time shares one fetching of it."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future

from forebay_protocol.errors import WorkerUnavailable
from forebay_protocol.keys import Span
from forebay_worker.arrival import Arrival, Condition, Deliver

Work = Callable[[Arrival], None]
"""Fetches a chunk and says to its arrival how far that has come."""


class Flights:
    """Chunks under way by key."""

    def __init__(self, condition: Callable[[], Condition] = threading.Condition) -> None:
        """Nothing is under way. ``condition`` makes what those wait at who want a chunk."""
        self._lock = threading.Lock()
        self._condition = condition
        self._flights: dict[Hashable, Arrival] = {}

    def start(self, key: Hashable, executor: Executor, work: Work) -> Arrival:
        """The flight under way, or a new one."""
        arrival, new = self._join(key)
        if new:
            try:
                future = executor.submit(self._fly, key, arrival, work)
            except RuntimeError:
                self._end(key, arrival, _stopping())
                raise
            future.add_done_callback(lambda done: self._cancelled(key, arrival, done))
        return arrival

    def lead(self, key: Hashable, span: Span, deliver: Deliver, work: Work) -> Arrival:
        """The flight under way; or a new one, over when this returns, that delivers this part of it on the way."""
        arrival, new = self._join(key)
        if new:
            arrival.deliver(*span, deliver)
            self._fly(key, arrival, work)
        return arrival

    def _join(self, key: Hashable) -> tuple[Arrival, bool]:
        """The flight of that key, and whether it is new."""
        with self._lock:
            arrival = self._flights.get(key)
            if arrival is not None:
                return arrival, False
            arrival = self._flights[key] = Arrival(self._condition)
            return arrival, True

    def _fly(self, key: Hashable, arrival: Arrival, work: Work) -> None:
        error: BaseException | None = None
        try:
            work(arrival)
        except BaseException as problem:  # noqa: BLE001 - not handled here: handed to everyone who waits
            error = problem
        self._end(key, arrival, error)

    def _cancelled(self, key: Hashable, arrival: Arrival, done: "Future[None]") -> None:
        if done.cancelled():
            self._end(key, arrival, _stopping())

    def _end(self, key: Hashable, arrival: Arrival, error: BaseException | None) -> None:
        # First: whoever learns of the end and asks again begins anew.
        with self._lock:
            del self._flights[key]
        arrival.end(error)

    def __len__(self) -> int:
        return len(self._flights)


def _stopping() -> WorkerUnavailable:
    return WorkerUnavailable("this worker stops; ask another one")
