"""The files of an index while it is written: collected row by row, packed in segments and blocks."""

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from forebay.index.columns import Segment, pack_numbers, pack_versions
from forebay.index.directory import joined
from forebay.index.layout import BLOCK, SEGMENT, BlockRecord
from forebay.index.naming import is_escaped
from forebay_protocol.errors import SourceInvalid

_EARLIEST, _LATEST = -(2**63), 2**63 - 1
_LARGEST = 2**63 - 1


class Rows:
    """Takes files in index order; what is full is written at once, so that little is in memory."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        """``write`` appends bytes to the file and returns their offset."""
        self._write = write
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._versions: list[str] = []
        self._mtimes: list[int] = []
        self._runs: deque[tuple[int, bool, int]] = deque()
        self._segments: list[Segment] = []
        self._done = 0
        # A record for each block, in arrays: a dataset may have as many blocks as files.
        self._offsets, self._lengths = array("Q"), array("I")
        self._firsts, self._counts = array("I"), array("I")
        self._folders, self._escaped = array("I"), array("B")

    @property
    def count(self) -> int:
        """How many files there are."""
        return self._done + len(self._names)

    def add(
        self, folder: int, names: Sequence[str], sizes: Sequence[int], versions: Sequence[str], mtimes: Sequence[int]
    ) -> None:
        """Add files of one folder whose names are all escaped, or none of them; SourceInvalid for impossible values."""
        if min(sizes) < 0 or max(sizes) > _LARGEST or not all(versions):
            raise SourceInvalid("the source listed an object without a version, or of an impossible size")
        self._names += names
        self._sizes += sizes
        self._versions += versions
        self._mtimes += mtimes
        self._runs.append((folder, is_escaped(names[0]), len(names)))
        while len(self._names) >= SEGMENT:
            self._pack(SEGMENT)

    def _pack(self, count: int) -> None:
        first = self._done
        try:
            versions, raw = pack_versions(self._versions[:count], 0)
            versions = versions._replace(offset=self._write(raw))
            self._write_names(count)
        except UnicodeEncodeError as error:
            raise SourceInvalid("the source listed an object whose version is no text") from error
        sizes, raw = pack_numbers(self._sizes[:count], 0, is_relative=False)
        sizes = sizes._replace(offset=self._write(raw))
        times = self._mtimes[:count]
        if min(times) < _EARLIEST or max(times) > _LATEST:
            times = [min(max(time, _EARLIEST), _LATEST) for time in times]
        mtimes, raw = pack_numbers(times, 0, is_relative=True)
        mtimes = mtimes._replace(offset=self._write(raw))
        self._segments.append(Segment(versions, sizes, mtimes))
        for column in (self._names, self._sizes, self._versions, self._mtimes):
            del column[:count]
        self._done = first + count

    def _write_names(self, count: int) -> None:
        """The blocks of the next files, cut from the runs."""
        texts: list[bytes] = []
        start = 0
        while start < count:
            folder, escaped, length = self._runs.popleft()
            taken = min(length, count - start)
            if taken < length:
                self._runs.appendleft((folder, escaped, length - taken))
            for begin in range(start, start + taken, BLOCK):
                end = min(begin + BLOCK, start + taken)
                texts.append(joined(self._names[begin:end]))
                self._firsts.append(self._done + begin)
                self._counts.append(end - begin)
                self._folders.append(folder)
                self._escaped.append(escaped)
            start += taken
        offset = self._write(b"".join(texts))
        for text in texts:
            self._offsets.append(offset)
            self._lengths.append(len(text))
            offset += len(text)

    def finish(self) -> list[Segment]:
        """Pack the rest; returns all segments."""
        if self._names:
            self._pack(len(self._names))
        return self._segments

    def blocks(self, places: Mapping[int, int]) -> Iterator[tuple[BlockRecord, bool]]:
        """The blocks in the order of the file, whose folders have these places; and whether their names are escaped."""
        columns = (self._offsets, self._lengths, self._firsts, self._counts, self._folders, self._escaped)
        for number in sorted(
            range(len(self._firsts)), key=lambda one: (places[self._folders[one]], self._escaped[one], one)
        ):
            offset, length, first, count, folder, escaped = (column[number] for column in columns)
            yield BlockRecord(offset, length, first, count, places[folder]), bool(escaped)
