"""Inodes: computed from path and version, and found again."""

import hashlib
from array import array
from bisect import bisect_left, bisect_right

from forebay.index.directory import names_of
from forebay.index.layout import Layout

ROOT_INODE = 1

_PARTS_SHIFT = 57
_PARTS = 1 << (63 - _PARTS_SHIFT)


def stable_inode(path: str, version: str) -> int:
    """63 bits that stay the same while path and version do, and are never 0 or the root's."""
    said = f"{path}\0{version}".encode("utf-8", "surrogateescape")
    return max(int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big") >> 1, ROOT_INODE + 1)


class FileInodes:
    """Which file an inode belongs to: made once for an index, by hashing every file (2 s for a million).

    Each file is a number of 64 bits, the upper ones of its inode and its own number, so that they can be sorted and
    searched in little room. They are sorted in parts, to need little more while they are made.
    """

    def __init__(self, layout: Layout) -> None:
        """What this raises on a damaged file is among ``layout.DAMAGE``."""
        self._bits = layout.file_count.bit_length()
        self._firsts = array("I")
        self._blocks = array("I")
        for first, number in sorted((layout.block(number).first, number) for number in range(layout.block_count)):
            self._firsts.append(first)
            self._blocks.append(number)
        parts = [array("Q") for _ in range(_PARTS)]
        for number in self._blocks:
            block = layout.block(number)
            segment, row = layout.segment_of(block.first)
            versions = segment.versions.rows(layout.data, row, row + block.file_count)
            path = layout.path(layout.folder(block.folder))
            for file, (name, version) in enumerate(zip(names_of(layout, block), versions, strict=True), block.first):
                inode = stable_inode(f"{path}/{name}", version)
                parts[inode >> _PARTS_SHIFT].append(self._upper(inode) | file)
        self._parts = [array("Q", sorted(part)) for part in parts]

    def _upper(self, inode: int) -> int:
        return inode >> self._bits << self._bits

    def files_like(self, inode: int) -> list[tuple[int, int]]:
        """Block and row of the files whose inodes begin like this one: one in general, or none."""
        if not 0 < inode < 2**63:
            return []
        part, upper = self._parts[inode >> _PARTS_SHIFT], self._upper(inode)
        start = bisect_left(part, upper)
        stop = bisect_left(part, upper + (1 << self._bits), start)
        return [self._place(numbered - upper) for numbered in part[start:stop]]

    def _place(self, file: int) -> tuple[int, int]:
        place = bisect_right(self._firsts, file) - 1
        return self._blocks[place], file - self._firsts[place]
