"""What readers of a dataset do, as sequences of chunk numbers; every trace is fixed by its seed."""

import random
from collections.abc import Callable, Iterator
from itertools import accumulate

Trace = list[int]


def cyclic(chunks: int, epochs: int) -> Trace:
    """The whole dataset in its order, again and again."""
    return [chunk for _ in range(epochs) for chunk in range(chunks)]


def epochs(chunks: int, rounds: int, seed: int = 1) -> Trace:
    """Training: the whole dataset in a new order each time."""
    rng = random.Random(seed)
    return [chunk for _ in range(rounds) for chunk in rng.sample(range(chunks), chunks)]


def zipf(chunks: int, length: int, skew: float = 0.9, seed: int = 1) -> Trace:
    """Independent reads, few chunks taking most of them."""
    rng = random.Random(seed)
    weights = list(accumulate(1 / rank**skew for rank in range(1, chunks + 1)))
    names = rng.sample(range(chunks), chunks)
    return [names[rank] for rank in rng.choices(range(chunks), cum_weights=weights, k=length)]


def moving_hot_set(chunks: int, hot: int, length: int, moves: int, seed: int = 1) -> Trace:
    """Nine of ten reads go to a hot set, which is replaced by another ``moves`` times."""
    rng = random.Random(seed)
    trace: Trace = []
    for _ in range(moves + 1):
        favourites = rng.sample(range(chunks), hot)
        for _ in range(length // (moves + 1)):
            trace.append(rng.choice(favourites) if rng.random() < 0.9 else rng.randrange(chunks))
    return trace


def scan_beside_hot_set(chunks: int, hot: int, length: int, seed: int = 1) -> Trace:
    """A hot set read at random while somebody scans all the rest; half of the reads each."""
    rng = random.Random(seed)
    scan = hot
    trace: Trace = []
    while len(trace) < length:
        trace += [rng.randrange(hot), scan]
        scan = hot + (scan + 1 - hot) % (chunks - hot)
    return trace


def change_of_dataset(chunks: int, rounds: int, seed: int = 1) -> Trace:
    """Training on one dataset, then on another of the same size."""
    return epochs(chunks, rounds, seed) + [chunk + chunks for chunk in epochs(chunks, rounds, seed + 1)]


def new_models(size: int, count: int, readers: int) -> Trace:
    """One model after the other, each read whole by so many readers in turn, never again after that."""
    return [model * size + chunk for model in range(count) for _ in range(readers) for chunk in range(size)]


TRACES: dict[str, Callable[[int], Trace]] = {
    "cyclic scan of 2x": lambda c: cyclic(2 * c, 5),
    "cyclic scan of 1.1x": lambda c: cyclic(c * 11 // 10, 6),
    "shuffled epochs of 2x": lambda c: epochs(2 * c, 3),
    "shuffled epochs of 10x": lambda c: epochs(10 * c, 4),
    "zipf 0.9 over 10x": lambda c: zipf(10 * c, 40 * c),
    "zipf 1.1 over 10x": lambda c: zipf(10 * c, 40 * c, 1.1),
    "hot set that moves": lambda c: moving_hot_set(10 * c, c * 3 // 4, 48 * c, 5),
    "scan beside a hot set": lambda c: scan_beside_hot_set(6 * c, c // 2, 40 * c),
    "epochs, then another dataset": lambda c: change_of_dataset(2 * c, 8),
    "new models, read 4 times each": lambda c: new_models(c // 2, 12, 4),
}
"""By name, for a cache of that many chunks."""


def ranges(trace: Trace, parts: int) -> Iterator[int]:
    """The same trace by readers who ask for every chunk in several ranges, 16 readers interleaved."""
    for start in range(0, len(trace), 16):
        for _ in range(parts):
            yield from trace[start : start + 16]
