"""Seeded faults of an object store, and the journal of those that were injected.

Whether and how an answer is broken depends on the seed, the object, the range and how often that range was asked
for, not on the order in which threads come: the same seed gives the same faults.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from testkit.store_proxy import Ending, StoreAnswer


class StoreFault(StrEnum):
    """One way in which a store, or what lies before it, answers a range GET wrong."""

    TRUNCATED = "truncated body"
    RESET = "reset"
    SHORT_RANGE = "short Content-Range"
    SHIFTED_RANGE = "shifted Content-Range"
    IGNORED_RANGE = "ignored Range"
    ERROR_IN_200 = "error XML with 200"
    FLIPPED_BIT = "flipped bit"
    WRONG_ETAG = "wrong ETag"
    FORBIDDEN = "403"
    MISSING = "404"
    PRECONDITION = "412"
    THROTTLED = "429"
    INTERNAL = "500"
    SLOW_DOWN = "503 SlowDown"
    STALL = "stall"
    DRIP = "slow drip"


_CODES = {
    StoreFault.FORBIDDEN: (403, "AccessDenied"),
    StoreFault.MISSING: (404, "NoSuchKey"),
    StoreFault.PRECONDITION: (412, "PreconditionFailed"),
    StoreFault.THROTTLED: (429, "TooManyRequests"),
    StoreFault.INTERNAL: (500, "InternalError"),
    StoreFault.SLOW_DOWN: (503, "SlowDown"),
    StoreFault.ERROR_IN_200: (200, "InternalError"),
}
_NEEDS_OTHER_BYTES = {StoreFault.SHIFTED_RANGE, StoreFault.IGNORED_RANGE}
"""What an answer with the whole object cannot suffer: nothing else is there to be sent instead."""

SEEN_AT_ONCE: Mapping[StoreFault, float] = {kind: 1.0 for kind in StoreFault if kind is not StoreFault.FLIPPED_BIT}
"""Every fault that a reader can tell from the answer itself, all as frequent."""


class Injected(NamedTuple):
    """One line of a journal: what was done to which bytes. ``place`` is a range, or a link between two workers."""

    kind: str
    object: str
    place: str


class Journal:
    """All faults that were injected. Thread-safe."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._lock = threading.Lock()
        self._lines: list[Injected] = []
        self._asked: Counter[tuple[str, str]] = Counter()

    def again(self, name: str, place: str) -> int:
        """How often this was asked for, this time included."""
        with self._lock:
            self._asked[name, place] += 1
            return self._asked[name, place]

    def note(self, line: Injected) -> None:
        """A fault is injected."""
        with self._lock:
            self._lines.append(line)

    def lines(self) -> list[Injected]:
        """All of them."""
        with self._lock:
            return list(self._lines)

    def answers(self) -> int:
        """How many answers passed, broken or not."""
        with self._lock:
            return self._asked.total()

    def __len__(self) -> int:
        return len(self._lines)


class SeededStoreFaults:
    """A fault for ``StoreProxy.break_answers``: breaks a share of the objects' range answers."""

    def __init__(
        self,
        seed: int,
        share: float,
        whole: Callable[[str], bytes],
        weights: Mapping[StoreFault, float] = SEEN_AT_ONCE,
    ) -> None:
        """``whole`` gives all bytes of the object at a path of the store; ``share`` is the part that breaks."""
        self.journal = Journal()
        self._seed = seed
        self._share = share
        self._whole = whole
        self._weights = weights

    def __call__(self, url: str, answer: StoreAnswer) -> None:
        """Break this answer, or leave it."""
        if answer.status != 206 or not answer.body:
            return
        path = unquote(urlsplit(url).path)
        dice = random.Random(f"{self._seed}|{path}|{answer.range}|{self.journal.again(path, answer.range)}")
        if dice.random() >= self._share:
            return
        first, last = (int(part) for part in answer.range.removeprefix("bytes=").split("-"))
        total = int(answer.headers["Content-Range"].rpartition("/")[2])
        is_whole = last - first + 1 == total
        kinds = [one for one in self._weights if not (is_whole and one in _NEEDS_OTHER_BYTES)]
        (kind,) = dice.choices(kinds, [self._weights[one] for one in kinds])
        self._break(kind, dice, answer, first, path)
        self.journal.note(Injected(kind, path, answer.range))

    def _break(self, kind: StoreFault, dice: random.Random, answer: StoreAnswer, first: int, path: str) -> None:
        length = len(answer.body)
        match kind:
            case StoreFault.TRUNCATED | StoreFault.RESET:
                answer.cut = dice.randrange(-1, length)
                answer.ending = Ending.CLOSE if kind is StoreFault.TRUNCATED else Ending.RESET
            case StoreFault.STALL | StoreFault.DRIP:
                answer.cut = dice.choice([-1, 0, dice.randrange(length)]) if kind is StoreFault.STALL else 0
                answer.ending = Ending.STALL if kind is StoreFault.STALL else Ending.DRIP
            case StoreFault.SHORT_RANGE:
                self._another_range(answer, first, dice.randrange(1, length) if length > 1 else 0, path)
            case StoreFault.SHIFTED_RANGE:
                total = len(self._whole(path))
                starts = [start for start in (0, first - 1, first + 1, total - length) if 0 <= start <= total - length]
                self._another_range(answer, dice.choice([one for one in starts if one != first]), length, path)
            case StoreFault.IGNORED_RANGE:
                answer.status, answer.body = 200, self._whole(path)
                del answer.headers["Content-Range"]
                answer.headers["Content-Length"] = str(len(answer.body))
            case StoreFault.FLIPPED_BIT:
                flipped = bytearray(answer.body)
                flipped[dice.randrange(length)] ^= 1 << dice.randrange(8)
                answer.body = bytes(flipped)
            case StoreFault.WRONG_ETAG:
                answer.headers["ETag"] = f'"{dice.randbytes(16).hex()}"'
            case _:
                status, code = _CODES[kind]
                answer.status = status
                answer.body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
                answer.headers = {"Content-Type": "application/xml", "Content-Length": str(len(answer.body))}
                if kind is StoreFault.THROTTLED:
                    answer.headers["Retry-After"] = "1"

    def _another_range(self, answer: StoreAnswer, first: int, length: int, path: str) -> None:
        """Right bytes, honestly announced, of another range than the one that was asked for."""
        whole = self._whole(path)
        answer.body = whole[first : first + length]
        answer.headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{len(whole)}"
        answer.headers["Content-Length"] = str(length)
