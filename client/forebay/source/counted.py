"""A source that sends no requests of ours: its mount's limits and what it reads are looked after from outside."""

from collections.abc import Iterator

from forebay.limits import Gate
from forebay.source.base import Listing, Source
from forebay.source.meter import Meter


class CountedSource:
    """Any source behind the mount's gate, with what it reads counted."""

    def __init__(self, source: Source, gate: Gate, meter: Meter) -> None:
        """Takes the source over."""
        self._source = source
        self._gate = gate
        self._meter = meter

    def list(self, prefix_below_mount: str = "", delimiter: bool = False) -> Iterator[Listing]:
        """As the source lists."""
        return self._source.list(prefix_below_mount, delimiter)

    def read_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview) -> None:
        """As the source reads, when the limits let it."""
        with self._gate.request(len(buffer)):
            self._meter.requested()
            self._source.read_into(key, version, size, offset, buffer)
            self._meter.received(len(buffer))

    def probe(self) -> None:
        """As the source probes."""
        with self._gate.request(0):
            self._source.probe()

    def close(self) -> None:
        """Close the source."""
        self._source.close()
