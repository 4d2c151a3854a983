"""Reads of ranges from one store over HTTP: repeated where that can help, hedged where it takes long."""

from collections.abc import Callable

from forebay.limits import Gate
from forebay.source.base import Arrived
from forebay.source.deadline import Deadline
from forebay.source.hedge import Hedges
from forebay.source.http_client import Attempt
from forebay.source.http_connection import Head
from forebay.source.meter import Meter
from forebay.source.retry import Retries
from forebay_protocol.errors import SourceError

Fetch = Callable[[int, memoryview, Deadline, Attempt, Arrived], Head]
"""Fills the buffer by one request for what lies so many bytes into the range, within the time, or raises; ends soon
with an error when the attempt is given up. Tells the bytes of this buffer that have arrived, and the answer's head."""

Check = Callable[[Head, memoryview], None]
"""Looks at the whole range and raises a SourceError when it is not what it should be."""


def nobody(_count: int) -> None:
    """Nobody wants to be told what has arrived."""


def unchecked(_head: Head, _buffer: memoryview) -> None:
    """Nothing is known of the range as a whole."""


class _Filling:
    """One range on its way: what has arrived stays, and only the rest is asked for again."""

    def __init__(self, buffer: memoryview, fetch: Fetch, check: Check, arrived: Arrived) -> None:
        self._buffer = buffer
        self._fetch = fetch
        self._check = check
        self._tell = arrived
        self._start = self._position = 0

    def attempt(self, hedges: Hedges, limit: Deadline) -> None:
        """Ask for the rest."""
        start = self._start = self._position
        head = hedges.run(
            self._buffer[start:],
            lambda into, one, arrived: self._fetch(start, into, limit, one, arrived),
            self._arrived,
        )
        try:
            self._check(head, self._buffer)
        except SourceError:
            self._position = 0
            self._tell(0)
            raise
        self._tell(len(self._buffer))

    def _arrived(self, count: int) -> None:
        position = self._start + count
        # All of it is told when it has been checked as a whole.
        if position < len(self._buffer):
            self._position = position
            self._tell(position)


class Reads:
    """One for each store. Thread-safe."""

    def __init__(self, meter: Meter, gate: Gate) -> None:
        """``retries`` is for what is no range, too: all requests to a store draw on one budget."""
        self.retries = Retries(meter)
        self._hedges = Hedges(meter, gate)

    def fill(
        self, buffer: memoryview, fetch: Fetch, arrived: Arrived = nobody, check: Check = unchecked
    ) -> None:  # fmt: skip
        """Fill the buffer, or raise the last attempt's SourceError."""
        filling = _Filling(buffer, fetch, check, arrived)
        self.retries.run(lambda limit: filling.attempt(self._hedges, limit))

    def close(self) -> None:
        """Hedge nothing any more."""
        self._hedges.close()
