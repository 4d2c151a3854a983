"""The crc32c of a whole made of the crc32c of its pieces, without reading the bytes again.

Appending n zero bytes is a linear map of the 32 bits of a checksum; maps for powers of two of n are made by squaring
(Mark Adler's ``crc32_combine`` of zlib, for the Castagnoli polynomial).
"""

from collections.abc import Iterable
from functools import lru_cache

_POLYNOMIAL = 0x82F63B78
_Map = tuple[int, ...]
"""Where each bit of a checksum goes."""


def _applied(one: _Map, checksum: int) -> int:
    result = 0
    for column in one:
        if not checksum:
            break
        if checksum & 1:
            result ^= column
        checksum >>= 1
    return result


def _after(one: _Map, other: _Map) -> _Map:
    """First ``other``, then ``one``."""
    return tuple(_applied(one, column) for column in other)


@lru_cache(maxsize=64)
def _zeros(count: int) -> _Map:
    """The map of appending so many zero bytes."""
    bit: _Map = (_POLYNOMIAL, *(1 << place for place in range(31)))
    step, result = bit, tuple(1 << place for place in range(32))
    for _ in range(3):
        step = _after(step, step)
    while count:
        if count & 1:
            result = _after(step, result)
        step = _after(step, step)
        count >>= 1
    return result


def combine(pieces: Iterable[tuple[int, int]]) -> int:
    """The crc32c of all pieces in a row; each is its crc32c and its length in bytes."""
    whole = 0
    for checksum, length in pieces:
        whole = _applied(_zeros(length), whole) ^ checksum
    return whole
