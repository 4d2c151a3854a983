"""How closely readers follow each other: for how long a new chunk is worth its room though others are to be kept.

Two nodes that read the same new file do so a second apart, or a minute; ranges of one chunk are asked for one after
the other. Whoever comes after the first finds the chunk if the queue of new chunks is as long as the reader is
behind, counted in bytes of new chunks and told apart by powers of two. Only those who come soon, counted in bytes of
all reads, are followers: a chunk that stays longer for one reader is worth less than those that it displaces.

Readers who wait for the same chunk while it is fetched follow each other at no distance at all, this time: the next
time one of them may be late. They count as if they were as far behind as is believed of readers in general.
"""

from collections import OrderedDict
from typing import NamedTuple

LEAST_SHARE = 1 / 32
"""New chunks always get so much of the room."""

MOST_SHARE = 1 / 2
"""Whoever comes after more reads than that, beside the room, comes back rather than follows."""

_BOUNDS = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
_BELIEVED = 1 / 8
_MOST_AWAITED = 4096
_MARGIN = 2
_NEGLIGIBLE = 1 / 3
"""Where fewer new chunks are followed, they get no room for it: in epochs some readers come soon by chance."""

_FADING = 1 - 1 / 256
"""What is left of the weight of a chunk when one more has been seen to its end."""


class _Arrival(NamedTuple):
    """Bytes of all reads and of new chunks up to this one."""

    clock: int
    position: int
    followed: int | None = None
    """The number of the bound within which its last reader came."""


class Following:
    """Tell it of all reads and of new chunks; ``share`` is the part of the room that new chunks should have."""

    def __init__(self) -> None:
        """Until it knows better, some are believed to follow: a restart must not make them fetch twice."""
        self._clock = 0
        self._position = 0
        self._arrivals: OrderedDict[int, _Arrival] = OrderedDict()
        self._awaited: OrderedDict[int, tuple[str, bool]] = OrderedDict()
        self._followers = [2.0 * (bound == _BELIEVED) for bound in _BOUNDS]
        self._alone = 0.0
        self.share = LEAST_SHARE
        self._decide()

    def awaited(self, chunk: int, reader: str) -> None:
        """A reader waits for a chunk that has to be fetched."""
        first, shared = self._awaited.setdefault(chunk, (reader, False))
        self._awaited[chunk] = (first, shared or first != reader)
        if len(self._awaited) > _MOST_AWAITED:
            # Fetches that failed leave theirs behind.
            self._awaited.popitem(last=False)

    def arrived(self, chunk: int, length: int) -> None:
        """The chunk that is being read is new, and takes ``length`` bytes."""
        self._position += length
        _, shared = self._awaited.pop(chunk, ("", False))
        self._arrivals.pop(chunk, None)
        self._arrivals[chunk] = _Arrival(self._clock, self._position)
        if shared:
            self._follow(chunk, _BOUNDS.index(_BELIEVED))

    def read(self, chunk: int, length: int, room: float) -> None:
        """A reader wants a chunk; all may take ``room``."""
        self._clock += length
        while self._arrivals and self._clock - next(iter(self._arrivals.values())).clock > room * MOST_SHARE:
            self._forget_oldest()
        arrival = self._arrivals.get(chunk)
        if arrival is not None:
            distance = (self._position - arrival.position) / room
            self._follow(chunk, next(number for number, bound in enumerate(_BOUNDS) if distance <= bound))

    def _follow(self, chunk: int, number: int) -> None:
        """A chunk has a follower within that bound; each chunk counts once, by the last."""
        former = self._arrivals[chunk].followed
        if former is not None and former >= number:
            return
        if former is not None:
            self._followers[former] = max(0.0, self._followers[former] - 1)
        self._arrivals[chunk] = self._arrivals[chunk]._replace(followed=number)
        self._followers[number] += 1
        self._decide()

    def keep_only(self, one_of: int) -> None:
        """The sample becomes smaller: one chunk of so many is told of from here on."""
        self._arrivals = OrderedDict(item for item in self._arrivals.items() if item[0] % one_of == 0)

    def _forget_oldest(self) -> None:
        _, arrival = self._arrivals.popitem(last=False)
        self._followers = [count * _FADING for count in self._followers]
        self._alone = self._alone * _FADING + (arrival.followed is None)
        self._decide()

    def _decide(self) -> None:
        negligible = _NEGLIGIBLE * (self._alone + sum(self._followers))
        farther = 0.0
        self.share = LEAST_SHARE
        for bound, count in zip(reversed(_BOUNDS), reversed(self._followers), strict=True):
            farther += count
            if farther > negligible:
                self.share = max(LEAST_SHARE, min(MOST_SHARE, _MARGIN * bound))
                break
