"""A chunk on its way into memory: whoever wants a part of it has it as soon as that is there.

One flight fills the chunk from its beginning to its end and says how far it has come; those who wait are given whole
blocks with their checksums. What they were given stays theirs, whatever becomes of the rest.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Protocol

from forebay_protocol.errors import SourceUnavailable
from forebay_protocol.keys import BLOCK_SIZE
from forebay_worker.store.checksums import block_sums, sums_of


class Condition(Protocol):
    """What is needed of a ``threading.Condition``."""

    def __enter__(self) -> bool | None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until the predicate holds; whether it does."""
        ...

    def notify_all(self) -> None:
        """Let those who wait look again."""
        ...


class Part(NamedTuple):
    """Whole blocks of a chunk in memory, their checksums, and where they came from."""

    data: memoryview
    sums: bytes
    source: str


Deliver = Callable[[Part], None]
"""Takes the part that somebody wants, in the thread that fetches: it must neither wait nor raise."""

Ended = Callable[[BaseException | None], None]
"""Told how a flight ended; it must neither wait nor raise."""


class Arrival:
    """One chunk that is being fetched. One thread fills it, any number wait for it."""

    def __init__(self, condition: Callable[[], Condition] = threading.Condition) -> None:
        """Nothing is there yet, not even the memory."""
        self._changed = condition()
        self._buffer: memoryview | None = None
        self._sums = bytearray()
        self.source = ""
        self._ready = 0
        self._instead: Arrival | None = None
        self._first: tuple[int, int, Deliver] | None = None
        self._error: BaseException | None = None
        self._over = False
        self._afterwards: list[Ended] = []

    def begin(self, buffer: memoryview, source: str) -> None:
        """The chunk comes into this memory, from there; nothing of it has come yet."""
        with self._changed:
            self._buffer, self.source, self._ready = buffer, source, 0
            self._sums.clear()

    def arrived(self, count: int) -> None:
        """The first ``count`` bytes are there and stay as they are; 0: they come anew, what was told is void.

        Checksums are computed here, once, over exactly what will be kept and sent.
        """
        buffer, ready = self._buffer, self._ready
        assert buffer is not None, "memory comes before bytes"
        if not count:
            self.begin(buffer, self.source)
            return
        whole = count if count == len(buffer) else count - count % BLOCK_SIZE
        if whole > ready:
            fresh = block_sums(buffer[ready:whole])
            with self._changed:
                self._sums += fresh
                self._ready = whole
                self._changed.notify_all()
            self._deliver(buffer)

    def deliver(self, within: int, length: int, deliver: Deliver) -> None:
        """Before the flight begins: hand over this range as soon as it is there. It saves who fetches a hand-off."""
        self._first = (within, length, deliver)

    def _deliver(self, buffer: memoryview) -> None:
        if self._first is not None and self._ready >= self._first[0] + self._first[1]:
            (within, length, deliver), self._first = self._first, None
            deliver(Part(buffer[within : within + length], sums_of(self.sums, within, length), self.source))

    def withdraw(self) -> None:
        """The memory is needed elsewhere; who has a part of it keeps that."""
        with self._changed:
            self._buffer, self._ready = None, 0

    def follow(self, other: "Arrival") -> None:
        """The chunk comes by another flight instead."""
        with self._changed:
            self._instead = other
            self._changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        """The flight is over: all of the chunk is there, and kept if it was to be, or there was an error."""
        with self._changed:
            self._over, self._error = True, error
            self._changed.notify_all()
            afterwards, self._afterwards = self._afterwards, []
        for call in afterwards:
            call(error)

    def then(self, call: Ended) -> None:
        """Tell of the end, in the flight's thread, or at once if it is over. Who is told so holds no memory of ours."""
        with self._changed:
            if not self._over:
                self._afterwards.append(call)
                return
        call(self._error)

    @property
    def sums(self) -> bytes:
        """The checksums of all blocks that are there."""
        return bytes(self._sums)

    def part(self, within: int, length: int, patience: float) -> Part:
        """A range of whole blocks, once it is there; the flight's error if it does not come."""
        end = within + length
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._ready >= end or self._over or self._instead is not None, patience
            ):
                raise SourceUnavailable(f"the chunk did not arrive within {patience:.0f} s; try again")
            if self._buffer is not None and self._ready >= end:
                return Part(self._buffer[within:end], sums_of(self.sums, within, length), self.source)
            instead = self._instead
        if instead is not None:
            return instead.part(within, length, patience)
        assert self._error is not None, "a flight ends with all bytes or with an error"
        raise self._error

    def wait(self, patience: float) -> None:
        """Until the flight is over, raising its error; TimeoutError when that takes longer."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._over, patience):
                raise TimeoutError
        if self._error is not None:
            raise self._error
