"""Single flight: callers who want the same thing at the same time share one doing of it."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The first caller for a key does the work; those who come while it runs get the same result or error."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Future[T]] = {}

    def do(self, key: Hashable, work: Callable[[], T], timeout: float) -> T:
        """The result of ``work``, by this call or by the one under way; TimeoutError when that takes too long."""
        with self._lock:
            flight = self._flights.get(key)
            leader = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if not leader:
            return flight.result(timeout)
        try:
            flight.set_result(work())
        except BaseException as error:  # noqa: BLE001 - not handled here: handed to everyone who waits
            flight.set_exception(error)
        finally:
            with self._lock:
                del self._flights[key]
        return flight.result()
