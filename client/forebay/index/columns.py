"""Columns of an index file: numbers at a fixed width and versions, each reachable by its row.

A column of numbers keeps ``(number - base) / unit`` in as few bytes as its largest takes: times of S3 are whole
milliseconds, often whole seconds, and close to each other. Versions that are MD5s (S3 ETags of uploads in one part)
are kept as their 16 bytes, all others as text.
"""

import math
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

_WIDTHS = {"B": 1, "H": 2, "I": 4, "Q": 8}
_MD5_DIGITS = 32
_MD5_BYTES = 16
_LARGEST = {code: 256**width - 1 for code, width in _WIDTHS.items()}

Buffer = bytes | memoryview


class Readable(Protocol):
    """What columns are read from: slices are copies (bytes, a memory map)."""

    def __getitem__(self, span: slice, /) -> bytes:
        """The bytes of a span."""
        ...


def little_endian(numbers: "array[int]") -> bytes:
    """The numbers' bytes as files have them."""
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def from_little_endian(code: str, raw: Buffer) -> "array[int]":
    """The numbers of such bytes; ValueError where a number is cut."""
    numbers = array(code)
    numbers.frombytes(raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class Numbers(NamedTuple):
    """Where a column of numbers lies and how it is read; ``code`` is the array module's."""

    offset: int
    base: int
    unit: int
    code: str

    def at(self, data: Readable, row: int) -> int:
        """One number."""
        width = _WIDTHS[self.code]
        start = self.offset + row * width
        raw = data[start : start + width]
        if len(raw) != width:
            raise ValueError("a column ends early")
        return self.base + self.unit * int.from_bytes(raw, "little")

    def rows(self, data: Readable, start: int, stop: int) -> Sequence[int]:
        """The numbers of a span of rows."""
        width = _WIDTHS[self.code]
        found = from_little_endian(self.code, data[self.offset + start * width : self.offset + stop * width])
        if len(found) != stop - start:
            raise ValueError("a column ends early")
        base, unit = self.base, self.unit
        return found if base == 0 and unit == 1 else [base + unit * number for number in found]


def pack_numbers(numbers: Sequence[int], offset: int, *, is_relative: bool) -> tuple[Numbers, bytes]:
    """The column of these numbers (at least one) at an offset of the file; relative ones count from the smallest."""
    base, unit = (min(numbers), 1) if is_relative else (0, 1)
    if is_relative:
        numbers = [number - base for number in numbers]
        unit = math.gcd(*numbers) or 1
        numbers = [number // unit for number in numbers] if unit > 1 else numbers
    largest = max(numbers)
    code = next(code for code, most in _LARGEST.items() if largest <= most)
    return Numbers(offset, base, unit, code), little_endian(array(code, numbers))


class Versions(NamedTuple):
    """Where a column of versions lies; text is preceded by the ends of all rows' texts."""

    offset: int
    row_count: int
    is_md5: bool

    def at(self, data: Readable, row: int) -> str:
        """One version."""
        if self.is_md5:
            start = self.offset + row * _MD5_BYTES
            raw = data[start : start + _MD5_BYTES]
            if len(raw) == _MD5_BYTES:
                return raw.hex()
        return self.rows(data, row, row + 1)[0]

    def rows(self, data: Readable, start: int, stop: int) -> list[str]:
        """The versions of a span of rows."""
        if self.is_md5:
            digits = data[self.offset + start * _MD5_BYTES : self.offset + stop * _MD5_BYTES].hex()
            found = [digits[place : place + _MD5_DIGITS] for place in range(0, len(digits), _MD5_DIGITS)]
        else:
            found = self._texts(data, start, stop)
        if len(found) != stop - start or not all(found):
            raise ValueError("a column ends early")
        return found

    def _texts(self, data: Readable, start: int, stop: int) -> list[str]:
        ends = Numbers(self.offset, 0, 1, "I").rows(data, start, stop)
        begin = self.offset + self.row_count * _WIDTHS["I"]
        place = 0 if start == 0 else Numbers(self.offset, 0, 1, "I").at(data, start - 1)
        raw = data[begin + place : begin + ends[-1]]
        found = []
        for end, last in zip(ends, (place, *ends), strict=False):
            found.append(raw[last - place : end - place].decode("utf-8", "surrogateescape"))
        return found


def pack_versions(versions: Sequence[str], offset: int) -> tuple[Versions, bytes]:
    """The column of these versions (at least one) at an offset of the file."""
    raw = _md5s(versions)
    if raw is not None:
        return Versions(offset, len(versions), True), raw
    texts = [version.encode("utf-8", "surrogateescape") for version in versions]
    return Versions(offset, len(versions), False), little_endian(array("I", _ends(texts))) + b"".join(texts)


def _md5s(versions: Sequence[str]) -> bytes | None:
    if set(map(len, versions)) != {_MD5_DIGITS}:
        return None
    digits = "".join(versions)
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return None
    return raw if raw.hex() == digits else None


def _ends(texts: Iterable[bytes]) -> list[int]:
    ends, end = [], 0
    for text in texts:
        end += len(text)
        ends.append(end)
    return ends


_SEGMENT = struct.Struct("<QQQqQBBB5x")
SEGMENT_SIZE = _SEGMENT.size


class Segment(NamedTuple):
    """The columns of the files of one segment."""

    versions: Versions
    sizes: Numbers
    mtimes: Numbers

    def pack(self) -> bytes:
        """Its record."""
        codes = "".join(_WIDTHS)
        return _SEGMENT.pack(
            self.versions.offset, self.sizes.offset, self.mtimes.offset, self.mtimes.base, self.mtimes.unit,
            self.versions.is_md5, codes.index(self.sizes.code), codes.index(self.mtimes.code),
        )  # fmt: skip

    @classmethod
    def unpack(cls, raw: bytes, count: int) -> "Segment":
        """Read a record; struct.error or IndexError where it is none."""
        versions, sizes, mtimes, base, unit, is_md5, size_code, mtime_code = _SEGMENT.unpack(raw)
        codes = "".join(_WIDTHS)
        return cls(
            Versions(versions, count, bool(is_md5)),
            Numbers(sizes, 0, 1, codes[size_code]),
            Numbers(mtimes, base, unit, codes[mtime_code]),
        )
