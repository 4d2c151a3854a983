"""Single flight on executors: whoever wants the same thing at the same time waits for one doing of it."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """Work under way by key. Unlike ``forebay.flight`` nobody's thread does the work for the others."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Future[T]] = {}

    def start(self, key: Hashable, executor: Executor, work: Callable[[], T]) -> Future[T]:
        """The flight under way, or a new one."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = executor.submit(work)
                new = True
            else:
                new = False
        if new:
            # Outside of the lock: a flight that has ended already calls back at once, in this thread.
            flight.add_done_callback(lambda _: self._end(key))
        return flight

    def _end(self, key: Hashable) -> None:
        with self._lock:
            self._flights.pop(key, None)

    def __len__(self) -> int:
        return len(self._flights)
