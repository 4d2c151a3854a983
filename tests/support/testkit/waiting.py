"""Wait for a condition with a deadline, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    probe: Callable[[], T], *, timeout: float, what: str, interval: float = 0.2, until: Callable[[T], object] = bool
) -> T:
    """The first result of `probe` that satisfies `until`; AssertionError with the last one when none does in time."""
    deadline = time.monotonic() + timeout
    while True:
        seen = probe()
        if until(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}; last seen: {seen!r}")
        time.sleep(interval)


def throughout(probe: Callable[[], T], *, seconds: float, what: str, holds: Callable[[T], object] = bool) -> None:
    """AssertionError as soon as `probe` gives a result that does not hold, looking again and again for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = probe()
        if not holds(seen):
            raise AssertionError(f"{what}, but seen: {seen!r}")
        time.sleep(0.2)
