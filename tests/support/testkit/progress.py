"""Lines with the elapsed time, so that nobody wonders whether it hangs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def print_line(line: str) -> None:
    """Write one line to standard output at once."""
    print(line, file=sys.stdout, flush=True)


class Progress:
    """Steps with the time since the start. The demo passes a sink of its own to show them in its way."""

    def __init__(self, sink: Callable[[str], None] = print_line) -> None:
        self._sink = sink
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Report something that is so now."""
        self._sink(f"[{self.elapsed:6.1f} s] {text}")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Report when something begins and, when it took a noticeable time, how long it took."""
        self.say(f"{text} …")
        begun = time.monotonic()
        yield
        took = time.monotonic() - begun
        self.say(f"{text}: done in {took:.1f} s")


def silent() -> Progress:
    """A progress that shows nothing."""
    return Progress(lambda _line: None)
