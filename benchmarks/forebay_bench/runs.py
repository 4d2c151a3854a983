"""Interleaved runs: every candidate once per round, so that a noisy minute meets them all."""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from forebay_bench.results import Row
from testkit.progress import Progress

ROUNDS = 3


class Question(Protocol):
    """One benchmark: its rows, and notes on flags, sizes and counters."""

    def __call__(self, progress: Progress) -> tuple[list[Row], list[str]]:
        """Measure."""


def interleaved(candidates: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Measure every candidate once per round, every other round in reverse order; values by name, in round order."""
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        names = list(candidates)
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(candidates[name]())
    return found


def best_of(candidates: Mapping[str, Callable[[], float]]) -> str:
    """The name of the candidate with the highest value: how a peer's flags are chosen before it is compared."""
    return max(candidates, key=lambda name: candidates[name]())


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process that it takes: for work that waits for nothing, on a machine that has other work too."""
    start = time.process_time()
    work()
    return time.process_time() - start
