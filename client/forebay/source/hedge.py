"""A second request for what takes long: whichever brings the bytes first wins, the other one is given up.

"Long" is judged by the store's own record: longer than 95 of 100 requests of that size, and more than four times the
median. At most 2 in 100 requests are hedged, so that a store that is slow for everyone is not asked twice for
everything (J. Dean, L. Barroso: The Tail at Scale, 2013).
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

from forebay.limits import Gate
from forebay.source.base import Arrived
from forebay.source.http_client import Attempt
from forebay.source.http_connection import Head
from forebay.source.meter import Meter

SHARE = 0.02
"""The part of all requests that may be hedged."""

_TIMES_THE_MEDIAN = 4.0
"""Requests that share a link vary by a factor of two or three; a second one would only take room from the first."""

_SAMPLES = 256
_ENOUGH = 50
_REFRESH = 16
_MOST_SAVED = 4.0
_AT_ONCE = 2
"""Hedged requests under way at the same time: each holds memory for its range."""

Fetch = Callable[[memoryview, Attempt, Arrived], Head]
"""Fills the buffer, or raises; ends soon with an error when the attempt is given up. Gives the answer's head."""


class LatencyRecord:
    """The durations of the latest requests of about one size. Thread-safe by its owner's lock."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self._fresh = 0
        self._long: float | None = None

    def add(self, seconds: float) -> None:
        """A request took so long."""
        self._samples.append(seconds)
        self._fresh += 1
        if len(self._samples) >= _ENOUGH and (self._long is None or self._fresh >= _REFRESH):
            ordered = sorted(self._samples)
            self._long = max(ordered[len(ordered) * 95 // 100], _TIMES_THE_MEDIAN * ordered[len(ordered) // 2])
            self._fresh = 0

    @property
    def long(self) -> float | None:
        """Seconds after which a request counts as slow; None while too little is known."""
        return self._long


class HedgeBudget:
    """Each request earns a fiftieth of a hedge; little is saved up."""

    def __init__(self) -> None:
        """Begin with nothing: the first hedge has to be earned."""
        self._tokens = 0.0

    def earn(self) -> None:
        """A request was sent."""
        self._tokens = min(_MOST_SAVED, self._tokens + SHARE)

    def take(self) -> bool:
        """Take the token of one hedge, if there is one."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Race:
    """One request, and perhaps the second one for the same bytes."""

    def __init__(self, fetch: Fetch, length: int, arrived: Arrived) -> None:
        self.fetch = fetch
        self.length = length
        self._tell = arrived
        self.done = 0
        self.first, self.second = Attempt(), Attempt()
        self.over = False
        self.hedge: Future[tuple[memoryview, Head]] | None = None

    def arrived(self, count: int) -> None:
        """The first request, which alone fills the caller's memory, has come so far."""
        self.done = count
        self._tell(count)

    def run_second(self) -> tuple[memoryview, Head]:
        """On a thread of its own: bring the bytes into memory of its own and end the first request."""
        scratch = memoryview(bytearray(self.length))
        head = self.fetch(scratch, self.second, lambda _: None)
        self.first.give_up()
        return scratch, head


class Hedges:
    """Watches the requests to one store. Thread-safe."""

    def __init__(self, meter: Meter, gate: Gate) -> None:
        """The watcher starts with the first request that is worth watching; nothing waits at the gate for a hedge."""
        self._meter = meter
        self._gate = gate
        self._wake = threading.Condition()
        self._records: dict[int, LatencyRecord] = {}
        self._budget = HedgeBudget()
        self._due: list[tuple[float, int, _Race]] = []
        self._order = count()
        self._hedging = 0
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False

    def run(self, buffer: memoryview, fetch: Fetch, arrived: Arrived) -> Head:
        """Fill the buffer by one request or, when that is slow, by the faster of two; the head of its answer.

        ``arrived`` is told of what is in the buffer for good, also when neither brings the rest.
        """
        start, size = time.monotonic(), len(buffer).bit_length()
        race = _Race(fetch, len(buffer), arrived)
        self._watch(race, start, size)
        try:
            head = fetch(buffer, race.first, race.arrived)
        except Exception:  # whatever failed the first request, the second may still bring the bytes
            hedge = self._settle(race)
            if hedge is None or hedge.exception() is not None:
                raise
            scratch, head = hedge.result()
            # The bytes that the first one brought may be with readers already.
            buffer[race.done :] = scratch[race.done :]
            race.arrived(len(buffer))
        else:
            if self._settle(race) is not None:
                race.second.give_up()
        with self._wake:
            self._records.setdefault(size, LatencyRecord()).add(time.monotonic() - start)
        return head

    def _watch(self, race: _Race, start: float, size: int) -> None:
        with self._wake:
            self._budget.earn()
            record = self._records.get(size)
            if record is None or record.long is None or self._closed:
                return
            heapq.heappush(self._due, (start + record.long, next(self._order), race))
            if self._executor is None:
                self._executor = ThreadPoolExecutor(_AT_ONCE, "hedge")
                threading.Thread(target=self._watch_races, name="hedge-watch", daemon=True).start()
            if self._due[0][2] is race:
                self._wake.notify_all()

    def _settle(self, race: _Race) -> Future[tuple[memoryview, Head]] | None:
        """The first request has ended; the second one, if there is any."""
        with self._wake:
            race.over = True
            return race.hedge

    def _watch_races(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._due or self._closed)
                if self._closed:
                    return
                due, _, race = self._due[0]
                wait = 0.0 if race.over else due - time.monotonic()
                if wait > 0:
                    self._wake.wait(wait)
                    continue
                heapq.heappop(self._due)
                if not race.over and self._hedging < _AT_ONCE and self._gate.is_free and self._budget.take():
                    self._begin(race)

    def _begin(self, race: _Race) -> None:
        assert self._executor is not None
        self._hedging += 1
        self._meter.hedge()
        race.hedge = self._executor.submit(race.run_second)
        race.hedge.add_done_callback(self._ended)

    def _ended(self, _: object) -> None:
        with self._wake:
            self._hedging -= 1

    def close(self) -> None:
        """Hedge nothing any more."""
        with self._wake:
            self._closed = True
            self._due.clear()
            self._wake.notify_all()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
