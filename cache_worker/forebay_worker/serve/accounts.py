"""What was served, counted: for the metrics, for the hit ratio of the last minutes, and for eviction."""

from forebay_protocol.wire import Flag
from forebay_worker.metrics import Metrics
from forebay_worker.serve.repeats import Known
from forebay_worker.shell import ChunkShell
from forebay_worker.window import ServedWindow


class Accounts:
    """Thread-safe."""

    def __init__(self, shell: ChunkShell, metrics: Metrics, window: ServedWindow) -> None:
        """Where it is counted."""
        self._shell, self._metrics, self._window = shell, metrics, window

    def hit(self, flags: Flag, length: int, tier: int) -> None:
        """So many bytes came from a tier."""
        cache = self._shell.cache
        self._count(flags, length, "" if cache is None else cache.store.medium(tier), hit=True)

    def miss(self, flags: Flag, length: int, source: str) -> None:
        """So many bytes had to be fetched first."""
        self._count(flags, length, source, hit=False)

    def repeats(self, repeated: list[Known]) -> None:
        """These were answered again. All at once: counting each by itself costs as much as answering it."""
        self._shell.touch([known.place for known in repeated])
        totals: dict[tuple[Flag, int], int] = {}
        for known in repeated:
            kind = known.flags, known.place.tier
            totals[kind] = totals.get(kind, 0) + known.length
        for (flags, tier), total in totals.items():
            self.hit(flags, total, tier)

    def _count(self, flags: Flag, length: int, place: str, *, hit: bool) -> None:
        if flags & Flag.INSTEAD:
            self._metrics.instead_bytes.inc(length)
        if flags & Flag.PEER:
            self._metrics.peer_served_bytes.inc(length)
            return
        self._metrics.served(place, length, hit=hit)
        self._window.add(length, hit=hit)
