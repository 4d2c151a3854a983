"""Reads of ranges from one store over HTTP: repeated where that can help, hedged where it takes long."""

from collections.abc import Callable

from forebay.limits import Gate
from forebay.source.deadline import Deadline
from forebay.source.hedge import Hedges
from forebay.source.http_client import Attempt
from forebay.source.meter import Meter
from forebay.source.retry import Retries

Fetch = Callable[[memoryview, Deadline, Attempt], None]
"""Fills the buffer by one request within the time, or raises; ends soon with an error when the attempt is given up."""


class Reads:
    """One for each store. Thread-safe."""

    def __init__(self, meter: Meter, gate: Gate) -> None:
        """``retries`` is for what is no range, too: all requests to a store draw on one budget."""
        self.retries = Retries(meter)
        self._hedges = Hedges(meter, gate)

    def fill(self, buffer: memoryview, fetch: Fetch) -> None:
        """Fill the buffer, or raise the last attempt's SourceError."""
        self.retries.run(lambda limit: self._hedges.run(buffer, lambda into, one: fetch(into, limit, one)))

    def close(self) -> None:
        """Hedge nothing any more."""
        self._hedges.close()
