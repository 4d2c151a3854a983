"""Ask one place after the other for the same bytes; where one is late, ask the next beside it: the first answer wins.

This is the hedged request of Dean and Barroso (The Tail at Scale, 2013), staggered as in RFC 8305. The first place is
read in the caller's own thread, so that a read in time costs nothing; only what is asked beside it gets a thread and a
buffer of its own.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from forebay.pace import Pace
from forebay_protocol.errors import ForebayError, ObjectChanged, ObjectMissing, WorkerUnavailable

FINAL = (ObjectChanged, ObjectMissing)
"""Errors that no other place can mend."""

_SHARE = 0.02
_BURST = 10.0
"""Hedges: so many for each read, and at most so many at once after a quiet time."""

_AGAIN = 0.05
"""Seconds until a late read looks again whether it may be hedged."""

_HOPELESS = 4.0
"""A place that takes so many times as long as it may is left, hedges allowed or not."""

_MOST_AT_ONCE = 3


class Allowance:
    """A bound on hedges as a share of all reads, so that general slowness never doubles the load. Thread-safe."""

    def __init__(self) -> None:
        """A full burst may be used at once."""
        self._lock = threading.Lock()
        self._tokens = _BURST

    def earn(self) -> None:
        """A read begins."""
        with self._lock:
            self._tokens = min(_BURST, self._tokens + _SHARE)

    def spend(self) -> bool:
        """Whether one more hedge is allowed; it counts."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True


class Attempt:
    """One place being asked; the ``Watch`` of its connection."""

    def __init__(self, pace: Pace, length: int, on_late: "Callable[[Attempt], None]") -> None:
        """The clock runs from here: waiting for a connection counts."""
        self._pace = pace
        self._length = length
        self._on_late = on_late
        self._lock = threading.Lock()
        self._abort: Callable[[], None] | None = None
        self._fetch_seconds: float | None = None
        self.start = self._since = time.monotonic()
        self._allowed = pace.allowed(length)
        self.due = self.start + pace.expected(length)
        self.was_late = False
        self.over = False
        self.lost = False

    def begin(self, abort: Callable[[], None]) -> None:
        """See ``Watch``."""
        with self._lock:
            if self.over:
                raise WorkerUnavailable("another place had the bytes first")
            self._abort = abort

    def end(self) -> None:
        """See ``Watch``."""
        with self._lock:
            self._abort = None

    def fetching(self) -> None:
        """See ``Watch``."""
        self._since, self._allowed = time.monotonic(), self._pace.allowed_fetch()
        self.due = self._since + self._allowed

    def answering(self) -> None:
        """See ``Watch``."""
        self._fetch_seconds = time.monotonic() - self.start
        self._since, self._allowed = time.monotonic(), self._pace.allowed(self._length)
        self.due = self._since + self._pace.expected(self._length)

    def late(self, received: int) -> None:
        """See ``Watch``. Bytes that come tell early how long the rest will take."""
        elapsed = time.monotonic() - self._since
        left = self._allowed - elapsed
        if received:
            rest = elapsed * (self._length - received) / received
            left = rest if rest <= max(left, self._pace.expected(self._length)) else 0.0
        if left > 0:
            self.due = time.monotonic() + max(left, _AGAIN)
            return
        self.was_late = True
        self._on_late(self)

    @property
    def fetched(self) -> bool:
        """Whether the worker had to fetch the chunk first."""
        return self._fetch_seconds is not None

    @property
    def hopeless(self) -> bool:
        """Whether it takes so much longer than it should that it counts as failed."""
        return time.monotonic() - self._since > _HOPELESS * self._allowed

    def succeeded(self) -> None:
        """All bytes are here: learn from the time that it took."""
        if self._fetch_seconds is not None:
            self._pace.note_fetch(self._fetch_seconds)
        else:
            self._pace.note(self._length, time.monotonic() - self.start)

    def stop(self, *, lost: bool) -> None:
        """Nobody needs the answer any more."""
        with self._lock:
            self.over, self.lost = True, lost
            if self._abort is not None:
                self._abort()


class Place(Protocol):
    """Somewhere to get the bytes from."""

    def avoided(self) -> bool:
        """Whether the place was found to be slow or failing meanwhile."""

    def spare(self) -> bool:
        """Whether it may be asked beside another place now, without waiting for its limits."""

    def outlasts(self, deadline: float) -> bool:
        """Whether it may still be busy at that monotonic time, since nothing ends it early."""

    def read_into(self, buffer: memoryview, attempt: Attempt) -> None:
        """Fill the buffer, or raise a ForebayError."""


class Race:
    """One read of ``length`` bytes from the places, best first."""

    def __init__(self, places: Sequence[Place], length: int, pace: Pace, allowance: Allowance, deadline: float) -> None:
        """``deadline`` is monotonic time: whoever still waits then gives up."""
        self._places = places
        self._length = length
        self._pace = pace
        self._allowance = allowance
        self._deadline = deadline
        self._asked = 0
        self._changed = threading.Condition()
        self._running: dict[Attempt, Place] = {}
        self._whole: bytearray | None = None
        self._winner: Attempt | None = None
        self._final: ForebayError | None = None
        self._problem: ForebayError | None = None
        self.hedges = 0

    def run(self, buffer: memoryview) -> None:
        """Fill the buffer; when no place gives the bytes, raise the last one's error."""
        while not self._decided() and (place := self._next()) is not None:
            if place.outlasts(self._deadline):
                self._beside(place)
                break
            attempt = self._enter(place)
            try:
                place.read_into(buffer, attempt)
            except FINAL:
                self._leave(attempt)
                self._stop_all()
                raise
            except ForebayError as error:
                self._leave(attempt)
                self._problem = error
            else:
                self._won(attempt, None)
                return
        self._await_hedges(buffer)

    def _next(self) -> Place | None:
        with self._changed:
            if self._asked == len(self._places):
                return None
            self._asked += 1
            return self._places[self._asked - 1]

    def _enter(self, place: Place) -> Attempt:
        attempt = Attempt(self._pace, self._length, self._late)
        with self._changed:
            self._running[attempt] = place
            if self._winner is not None:
                attempt.stop(lost=False)
        return attempt

    def _leave(self, attempt: Attempt) -> None:
        with self._changed:
            del self._running[attempt]
            self._changed.notify_all()

    def _decided(self) -> bool:
        return self._winner is not None or self._final is not None

    def _won(self, attempt: Attempt, whole: bytearray | None) -> None:
        with self._changed:
            if self._winner is None:
                self._winner, self._whole = attempt, whole
            del self._running[attempt]
            others, earlier = list(self._running), attempt.start
            self._changed.notify_all()
        for other in others:
            other.stop(lost=other.start < earlier)

    def _stop_all(self) -> None:
        with self._changed:
            others = list(self._running)
        for other in others:
            other.stop(lost=False)

    def _late(self, attempt: Attempt) -> None:
        """The attempt takes longer than it should: leave a place that is known to be slow, else hedge.

        Where all that are asked are known to be slow, the next place is no hedge but the only hope: it costs nothing.
        """
        attempt.due = time.monotonic() + _AGAIN
        with self._changed:
            if self._asked == len(self._places):
                return
            slow = attempt.hopeless or all(place.avoided() for place in self._running.values())
            if slow and len(self._running) == 1:
                attempt.stop(lost=attempt.hopeless)
                raise WorkerUnavailable("the worker is slow; another place is asked")
            following = self._places[self._asked]
            if len(self._running) >= _MOST_AT_ONCE or not (following.spare() and (slow or self._allowance.spend())):
                return
            self._asked += 1
            self.hedges += 1
        attempt.due = time.monotonic() + self._pace.allowed(self._length)
        self._beside(following)

    def _beside(self, place: Place) -> None:
        attempt = self._enter(place)
        threading.Thread(target=self._hedge, args=(place, attempt), name="hedge", daemon=True).start()

    def _hedge(self, place: Place, attempt: Attempt) -> None:
        whole = bytearray(self._length)
        try:
            place.read_into(memoryview(whole), attempt)
        except ForebayError as error:
            if isinstance(error, FINAL):
                self._final = error
                self._stop_all()
            self._problem = error
            self._leave(attempt)
        else:
            self._won(attempt, whole)

    def _await_hedges(self, buffer: memoryview) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._decided() or not self._running, timeout=max(0.0, self._deadline - time.monotonic())
            )
            whole = self._whole
        if whole is not None:
            buffer[:] = whole
            return
        self._stop_all()
        raise self._final or self._problem or WorkerUnavailable("no place gave the bytes in time")
