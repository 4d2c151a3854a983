"""Ask a failing store again, with full jitter, but never more than the store can bear.

Retries of all requests to a store draw on one budget of tokens: a success puts some back, a retry takes one. A
store that answers half of its requests is asked until it answers; one that answers none is soon asked once per
read and not twelve times, however many read (the token bucket of the AWS SDKs' "standard" retries).
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from forebay.source.deadline import Deadline
from forebay.source.meter import Meter
from forebay_protocol.errors import ObjectChanged, ObjectMissing, SourceDenied, SourceError

T = TypeVar("T")

_VERDICTS = (ObjectMissing, ObjectChanged, SourceDenied)
"""Answers that end an open file: believed when they are given often enough in a row."""

BELIEVED = 4
"""A store that is failing says 404 or 403 now and then of what it has; three requests more tell that apart."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """Attempts for one read, its pauses and its time; all times in seconds."""

    attempts: int = 12
    pause: float = 0.05
    """The most before the second attempt; it doubles with each further one."""
    longest_pause: float = 0.5
    seconds: float = 25.0
    """After that nobody waits for the answer any more."""
    tokens: float = 100.0
    per_success: float = 2.0
    """Two: then a store that answers one request in three is asked until it answers."""


class RetryBudget:
    """Tokens for retries, shared by all requests to one store. Thread-safe."""

    def __init__(self, rules: RetryRules) -> None:
        """Begin full."""
        self._lock = threading.Lock()
        self._most, self._per_success = rules.tokens, rules.per_success
        self._tokens = rules.tokens

    def take(self) -> bool:
        """Take the token of one retry, if there is one."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def succeeded(self) -> None:
        """The store answered."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._per_success)


class Retries:
    """Runs attempts until one succeeds, the error is final, or attempts, time or budget are used up."""

    def __init__(
        self, meter: Meter, rules: RetryRules = RetryRules(), sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """One for each store."""
        self._meter = meter
        self._rules = rules
        self._budget = RetryBudget(rules)
        self._sleep = sleep

    def run(self, attempt: Callable[[Deadline], T]) -> T:
        """The result of the first attempt that succeeds; each gets what is left of the time."""
        deadline = Deadline(self._rules.seconds)
        said: list[SourceError] = []
        for number in range(1, self._rules.attempts + 1):
            try:
                result = attempt(deadline)
            except SourceError as error:
                said = [*said, error] if said and type(said[-1]) is type(error) else [error]
                pause = self._pause(number, said, deadline)
                if pause is None:
                    raise
            else:
                self._budget.succeeded()
                return result
            self._meter.retried()
            self._sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _pause(self, number: int, said: list[SourceError], deadline: Deadline) -> float | None:
        """Seconds until the next attempt; None for none. ``said``: the latest errors, all of one kind."""
        if number == self._rules.attempts:
            return None
        error = said[-1]
        if isinstance(error, _VERDICTS):
            return 0.0 if len(said) < BELIEVED and self._budget.take() else None
        most = min(self._rules.longest_pause, self._rules.pause * 2 ** (number - 1))
        # Full jitter spreads those who failed together; what the store itself asks for is the least.
        pause = random.uniform(0, most) + (error.retry_after or 0.0)  # noqa: S311 - jitter is no secret
        if not error.retryable or pause >= deadline.left() or not self._budget.take():
            return None
        return pause
