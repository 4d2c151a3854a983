"""A process that reads one file of a mount, on and on, and compares every byte with a copy.

``python -m testkit.steady_reader FILE COPY HOW SEED`` reads until its standard input is closed, then prints what
it saw (`Seen`) as JSON. HOW is ``direct`` (O_DIRECT, one descriptor), ``buffered`` (opened anew now and then,
its folder listed, the page cache dropped) or ``mapped``. A process of its own: a page fault holds the
interpreter's lock.
"""

import json
import mmap
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

LONG = 0.02
"""Seconds from which on a read is noted with its time."""

_PAGE = 4096
_LONGEST = 64


@dataclass
class Seen:
    """What one reader saw. ``long_reads`` are begin and end by this machine's monotonic clock."""

    reads: int = 0
    wrong: int = 0
    errors: list[str] = field(default_factory=list)
    long_reads: list[tuple[float, float]] = field(default_factory=list)


class SteadyReader:
    """The process, as a test starts and ends it."""

    def __init__(self, file: Path, copy: Path, how: str, seed: int) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testkit.steady_reader", str(file), str(copy), how, str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip

    def end(self) -> Seen:
        """Have it stop; what it saw."""
        output, _ = self._process.communicate(timeout=120)
        if self._process.returncode != 0:
            return Seen(errors=[f"the reader ended with {self._process.returncode}"])
        return Seen(**json.loads(output))


def _direct(file: Path) -> Callable[[int, int], bytes]:
    descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
    return lambda offset, length: os.pread(descriptor, length, offset)


def _buffered(file: Path) -> Callable[[int, int], bytes]:
    descriptors = [os.open(file, os.O_RDONLY)]
    opened = iter(range(sys.maxsize))

    def read(offset: int, length: int) -> bytes:
        if next(opened) % 16 == 15:
            os.close(descriptors.pop())
            if file.name not in os.listdir(file.parent):  # noqa: PTH208 - names, as the kernel gives them
                raise FileNotFoundError(file)
            descriptors.append(os.open(file, os.O_RDONLY))
        os.posix_fadvise(descriptors[0], 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(descriptors[0], length, offset)

    return read


def _mapped(file: Path) -> Callable[[int, int], bytes]:
    descriptor = os.open(file, os.O_RDONLY)
    mapped = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)

    def read(offset: int, length: int) -> bytes:
        mapped.madvise(mmap.MADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return mapped[offset : offset + length]

    return read


_WAYS = {"direct": _direct, "buffered": _buffered, "mapped": _mapped}


def main(file: str, copy: str, how: str, seed: str) -> None:
    """Read until nobody wants it any more."""
    chance, seen = random.Random(int(seed)), Seen()
    expected = Path(copy).read_bytes()
    read = _WAYS[how](Path(file))
    while not select.select([sys.stdin], [], [], 0)[0]:
        offset = chance.randrange(len(expected) // _PAGE) * _PAGE
        length = chance.randint(1, _LONGEST) * _PAGE
        began = time.monotonic()
        try:
            data = read(offset, length)
        except OSError as error:
            seen.errors.append(str(error))
            continue
        ended = time.monotonic()
        seen.reads += 1
        seen.wrong += data != expected[offset : offset + length]
        if ended - began > LONG:
            seen.long_reads.append((began, ended))
    print(json.dumps(asdict(seen)))


if __name__ == "__main__":
    main(*sys.argv[1:])
