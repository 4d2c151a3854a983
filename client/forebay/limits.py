"""Keep what one process asks of a store within its share of the mount's limits.

Each request waits until all of it is paid for, and then goes at full speed: the store sees no more than over a link of
that rate. Nothing is saved up while nobody asks. What would take longer than a second to pay begins after that second,
and the next one waits for the rest; so the limits hold on the average of a second.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from forebay_protocol.dataset import SourceLimits
from forebay_protocol.errors import Overloaded

PATIENCE = 20.0
"""Seconds that a request waits for its turn, at most: whoever wants the bytes has 30 s, and other places to ask."""

_AHEAD = 1.0
"""Seconds that a request pays before it begins, at most."""

_TICK = 0.25
"""Seconds between looks whether a share has grown."""


class TokenBucket:
    """Spends a rate, in the order of asking. Not thread-safe, and without a clock of its own."""

    def __init__(self) -> None:
        """Nothing was spent yet."""
        self._paid_until = float("-inf")

    def turn(self, count: float, rate: float, now: float) -> float:
        """When so many tokens may be used, if they are asked for now."""
        return max(self._paid_until, now) + min(count / rate, _AHEAD)

    def spend(self, count: float, rate: float, now: float) -> None:
        """They will be: whoever comes next waits until they are paid."""
        self._paid_until = max(self._paid_until, now) + count / rate

    def is_free(self, now: float) -> bool:
        """Whether nobody is paying."""
        return self._paid_until <= now


class Gate:
    """The way to one mount's store, for all threads of this process. Without limits it is open."""

    def __init__(self, limits: SourceLimits, share: Callable[[], float] = lambda: 1.0) -> None:
        """``share`` is this process's part of the limits; it is asked for each request."""
        self._limits = limits
        self._share = share
        self._changed = threading.Condition()
        self._bytes, self._requests = TokenBucket(), TokenBucket()
        self._open = 0

    @property
    def is_free(self) -> bool:
        """Whether a request would not have to wait for others now."""
        with self._changed:
            now = time.monotonic()
            return self._has_connection() and self._bytes.is_free(now) and self._requests.is_free(now)

    @contextmanager
    def request(self, length: int) -> Iterator[None]:
        """One request for so many bytes; the block ends with its answer. Overloaded when its turn does not come."""
        if not self._limits:
            yield
            return
        self._enter(length)
        try:
            yield
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify()

    def _enter(self, length: int) -> None:
        end = time.monotonic() + PATIENCE
        with self._changed:
            turn = self._pay(length, end)
            while (now := time.monotonic()) < turn or not self._has_connection():
                if now >= end:
                    raise _too_many()
                # A connection's end is told; that the share has grown is not.
                self._changed.wait(min(turn - now if now < turn else _TICK, end - now))
            self._open += 1

    def _pay(self, length: int, end: float) -> float:
        """Take a place behind all who pay already; when the request may begin."""
        now, share = time.monotonic(), self._share()
        spends = []
        if self._limits.bandwidth:
            spends.append((self._bytes, length, self._limits.bandwidth * share))
        if self._limits.requests_per_second:
            spends.append((self._requests, 1, self._limits.requests_per_second * share))
        turn = max((bucket.turn(count, rate, now) for bucket, count, rate in spends), default=now)
        if turn > end:
            raise _too_many()
        for bucket, count, rate in spends:
            bucket.spend(count, rate, now)
        return turn

    def _has_connection(self) -> bool:
        most = self._limits.connections
        # A part of a connection is none: everybody may have one.
        return not most or self._open < max(1, int(most * self._share()))


def _too_many() -> Overloaded:
    return Overloaded("the mount's limits leave no room for another request now", retry_after=1.0)


OPEN = Gate(SourceLimits())
"""The gate of a store that nobody limits."""
