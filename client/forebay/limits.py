"""Keep what one process asks of a store within its share of the mount's limits.

Each request waits until the store may be asked again, and then goes at full speed. So the limits hold on the
average of a second or so; a single answer is as fast as the store sends it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from forebay_protocol.dataset import SourceLimits
from forebay_protocol.errors import Overloaded

PATIENCE = 20.0
"""Seconds that a request waits for its turn, at most: whoever wants the bytes has 30 s, and other places to ask."""

_BURST = 0.1
"""Seconds of a rate that may be used at once after a pause."""

_TICK = 0.25
"""Seconds between looks whether a share has grown."""


class TokenBucket:
    """Spends a rate: says when so many tokens may be used. Not thread-safe, and without a clock of its own."""

    def __init__(self) -> None:
        """Nothing was spent yet."""
        self._paid_until = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until something may be spent."""
        return max(0.0, self._paid_until - _BURST - now)

    def spend(self, count: float, rate: float, now: float) -> None:
        """So many tokens are used now; whoever comes next pays for what that is more than there was."""
        self._paid_until = max(self._paid_until, now) + count / rate


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
        """Whether a request would not have to wait now."""
        with self._changed:
            return self._wait() <= 0

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
            while (wait := self._wait()) > 0:
                left = end - time.monotonic()
                if left <= 0:
                    raise Overloaded("the mount's limits leave no room for another request now", retry_after=1.0)
                self._changed.wait(min(wait, left, _TICK))
            now, share = time.monotonic(), self._share()
            if self._limits.bandwidth:
                self._bytes.spend(length, self._limits.bandwidth * share, now)
            if self._limits.requests_per_second:
                self._requests.spend(1, self._limits.requests_per_second * share, now)
            self._open += 1

    def _wait(self) -> float:
        """Seconds until the next request may begin, as far as that is known."""
        limits, now = self._limits, time.monotonic()
        # A part of a connection is none: everybody may have one.
        if limits.connections and self._open >= max(1, int(limits.connections * self._share())):
            return _TICK
        return max(
            self._bytes.wait(now) if limits.bandwidth else 0.0,
            self._requests.wait(now) if limits.requests_per_second else 0.0,
        )


OPEN = Gate(SourceLimits())
"""The gate of a store that nobody limits."""
