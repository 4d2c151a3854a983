"""A process that writes chunks into a store until it is killed, and tells on its output what it has committed.

Arguments: folder, quota in bytes, first number, threads. Every line is one system call: ``begin``, ``done`` or
``refused``, the object's number, the chunk's.
"""

import os
import random
import sys
import threading
from pathlib import Path

from forebay_protocol.keys import CHUNK_SIZE, ObjectVersion
from forebay_worker.metrics import Metrics
from forebay_worker.settings import TierSettings
from forebay_worker.store.tiered import ChunkStore
from testkit.chunk_store import get, put

SIZES = (16_000, 100_000, 1_000_000, CHUNK_SIZE, 2 * CHUNK_SIZE + 70_000)
PER_RUN = 400
"""Objects, at most, so that nobody fills a disk who is not killed."""


def written(number: int) -> ObjectVersion:
    """The object of that number."""
    return ObjectVersion("uid", "m", f"written/{number}", "v", SIZES[number % len(SIZES)])


def tiers(folder: Path, quota: int) -> tuple[TierSettings, ...]:
    """A fast tier of a quarter, a slower one of two folders."""
    return (
        TierSettings(medium="Memory", paths=(folder / "fast",), quota=quota // 4),
        TierSettings(medium="SSD", paths=(folder / "slow-a", folder / "slow-b"), quota=quota - quota // 4),
    )


def _say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def main(folder: Path, quota: int, first: int, threads: int) -> None:
    """Write, read back now and then, and move between tiers."""
    store = ChunkStore(tiers(folder, quota), "uid", Metrics())
    numbers = iter(range(first, first + PER_RUN))
    lock = threading.Lock()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            one = written(number)
            for chunk in one.chunks():
                _say("begin", number, chunk)
                _say("done" if put(store, one, chunk) else "refused", number, chunk)
            get(store, written(rng.randrange(max(0, number - 20), number + 1)))
            store.move_one()

    for thread in [threading.Thread(target=work, args=(first + one,)) for one in range(threads)]:
        thread.start()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
