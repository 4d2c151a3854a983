"""The tables of an index file, and where they lie.

Files are numbered in index order: by mount, then by key. Their columns come in segments of ``SEGMENT`` files
(``columns``), their names in blocks: up to ``BLOCK`` files of one folder with consecutive numbers, each block a
text of all names, every one between slashes. Folders are numbered breadth first, the folders in one folder in
the order of their names, so that they are consecutive. A folder's blocks are consecutive too: those of plain names
first, whose order is that of the names, then those of escaped names. What can be computed is not kept: keys follow
from paths, inodes from paths and versions. The footer says where everything is.
"""

import json
import mmap
import struct
from array import array
from bisect import bisect_left
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from forebay.index.columns import SEGMENT_SIZE, Segment, from_little_endian, little_endian
from forebay_protocol.errors import InvalidRequest

FORMAT = 2
SEGMENT = 16384
BLOCK = 128
NO_MOUNT = 0xFFFF_FFFF

DAMAGE = (struct.error, ValueError, IndexError, KeyError, TypeError, OverflowError)
"""What reading a damaged file may raise; whoever reads maps it to InvalidRequest."""

_MAGIC = b"forebay\0"
_FOLDER = struct.Struct("<QIIIIIII")
_BLOCK = struct.Struct("<QIIII")
_FOOTER = struct.Struct("<QQQQQQQIIIIII8s")
_NUMBERS = {"Q": 8, "I": 4}


class FolderRecord(NamedTuple):
    """A folder: where its path is (empty for the root), whose files it has, its folders and its blocks."""

    path_offset: int
    path_length: int
    mount: int
    first_child: int
    child_count: int
    first_block: int
    plain_blocks: int
    escaped_blocks: int


class BlockRecord(NamedTuple):
    """A block: where its names are, the number of its first file, how many it has, and their folder."""

    offset: int
    length: int
    first: int
    file_count: int
    folder: int


class Tables(NamedTuple):
    """All tables of a file that is about to be complete."""

    segments: list[Segment]
    folders: list[FolderRecord]
    blocks: list[BlockRecord]
    inodes: "array[int]"
    """The folders' inodes, ascending."""
    inode_folders: "array[int]"
    """The folder of each of them."""
    shadowed: "array[int]"
    """Files that are not shown because a folder has their name, ascending."""


class _Footer(NamedTuple):
    segments: int
    folders: int
    blocks: int
    inodes: int
    inode_folders: int
    shadowed: int
    about: int
    file_count: int
    folder_count: int
    block_count: int
    shadowed_count: int
    about_length: int
    format: int
    magic: bytes


def tail(tables: Tables, file_count: int, about: dict[str, Any], offset: int) -> bytes:
    """What ends a file whose columns, names and paths end at ``offset``."""
    sections = [
        b"".join(segment.pack() for segment in tables.segments),
        b"".join(_FOLDER.pack(*record) for record in tables.folders),
        b"".join(_BLOCK.pack(*record) for record in tables.blocks),
        little_endian(tables.inodes),
        little_endian(tables.inode_folders),
        little_endian(tables.shadowed),
        json.dumps(about).encode(),
    ]
    offsets = []
    for section in sections:
        offsets.append(offset)
        offset += len(section)
    counts = (file_count, len(tables.folders), len(tables.blocks), len(tables.shadowed), len(sections[-1]), FORMAT)
    return b"".join(sections) + _FOOTER.pack(*offsets, *counts, _MAGIC)


class Layout:
    """Read access to the tables of a complete file, which stays readable when it loses its name."""

    def __init__(self, path: Path) -> None:
        """Map the file; InvalidRequest when it is none of this format."""
        with path.open("rb") as file:
            self.data = _map(file)
        try:
            self._footer = footer = _footer(self.data)
            self._check_tables()
            self.about: dict[str, Any] = json.loads(self.data[footer.about : footer.about + footer.about_length])
            self._inodes = self._numbers("Q", footer.inodes, footer.folder_count)
            self._inode_folders = self._numbers("I", footer.inode_folders, footer.folder_count)
            self.shadowed = frozenset(self._numbers("I", footer.shadowed, footer.shadowed_count))
            self._segments = [self._segment(number) for number in range(-(-footer.file_count // SEGMENT))]
        except DAMAGE as error:
            self.data.close()
            raise InvalidRequest(f"not an index: {error}") from error
        except InvalidRequest:
            self.data.close()
            raise

    def _check_tables(self) -> None:
        """All tables lie in the file: what it says of itself makes nobody reserve more than its own size."""
        footer = self._footer
        segment_count = -(-footer.file_count // SEGMENT)
        for offset, count, size in (
            (footer.segments, segment_count, SEGMENT_SIZE),
            (footer.folders, footer.folder_count, _FOLDER.size),
            (footer.blocks, footer.block_count, _BLOCK.size),
            (footer.inodes, footer.folder_count, _NUMBERS["Q"]),
            (footer.inode_folders, footer.folder_count, _NUMBERS["I"]),
            (footer.shadowed, footer.shadowed_count, _NUMBERS["I"]),
            (footer.about, footer.about_length, 1),
        ):
            if offset + count * size > len(self.data):
                raise ValueError("a table ends early")

    @property
    def file_count(self) -> int:
        """How many files have a number, the shadowed ones included."""
        return self._footer.file_count

    @property
    def block_count(self) -> int:
        """How many blocks there are."""
        return self._footer.block_count

    def _numbers(self, code: str, offset: int, count: int) -> "array[int]":
        return from_little_endian(code, self.data[offset : offset + count * _NUMBERS[code]])

    def _segment(self, number: int) -> Segment:
        offset = self._footer.segments + number * SEGMENT_SIZE
        count = min(SEGMENT, self.file_count - number * SEGMENT)
        return Segment.unpack(self.data[offset : offset + SEGMENT_SIZE], count)

    def segment_of(self, file: int) -> tuple[Segment, int]:
        """A file's segment, and its row in there."""
        number, row = divmod(file, SEGMENT)
        return self._segments[number], row

    def folder(self, number: int) -> FolderRecord:
        """The record of a folder."""
        if number >= self._footer.folder_count:
            raise IndexError("no such folder")
        return FolderRecord._make(_FOLDER.unpack_from(self.data, self._footer.folders + number * _FOLDER.size))

    def path(self, record: FolderRecord) -> str:
        """The path of a folder: empty for the root, else with a slash before each name."""
        raw = self.data[record.path_offset : record.path_offset + record.path_length]
        if len(raw) < record.path_length:
            raise ValueError("a path ends early")
        return raw.decode()

    def folder_number(self, inode: int) -> int | None:
        """The folder of an inode."""
        if not 0 < inode < 2**63:
            return None
        place = bisect_left(self._inodes, inode)
        if place < len(self._inodes) and self._inodes[place] == inode:
            return self._inode_folders[place]
        return None

    def block(self, number: int) -> BlockRecord:
        """The record of a block."""
        if number >= self._footer.block_count:
            raise IndexError("no such block")
        record = BlockRecord._make(_BLOCK.unpack_from(self.data, self._footer.blocks + number * _BLOCK.size))
        last = record.first + record.file_count - 1
        if last >= self.file_count or record.first // SEGMENT != last // SEGMENT:
            raise ValueError("a block of files that do not exist")
        return record

    def names(self, block: BlockRecord) -> bytes:
        """The names of a block, each between slashes."""
        raw = self.data[block.offset : block.offset + block.length]
        if len(raw) < block.length or raw[:1] != b"/" or raw[-1:] != b"/":
            raise ValueError("names end early")
        return raw

    def close(self) -> None:
        """Unmap the file; nothing may be read any more."""
        self.data.close()


def _map(file: BinaryIO) -> mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise InvalidRequest(f"not an index: {error}") from error


def _footer(data: mmap.mmap) -> _Footer:
    if len(data) < _FOOTER.size:
        raise ValueError("it is too short")
    footer = _Footer._make(_FOOTER.unpack_from(data, len(data) - _FOOTER.size))
    if footer.magic != _MAGIC:
        raise ValueError("it does not end as one")
    if footer.format != FORMAT:
        raise InvalidRequest(f"the index has format {footer.format}; this program reads format {FORMAT}")
    return footer
