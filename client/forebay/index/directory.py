"""The files of one folder by name: looked for in the text of a block, and listed in order."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from forebay.index.layout import BlockRecord, FolderRecord, Layout
from forebay.index.naming import is_escaped


def joined(names: Sequence[str]) -> bytes:
    """The names of a block as the file has them; UnicodeEncodeError for what is no UTF-8."""
    return f"/{'/'.join(names)}/".encode()


def names_of(layout: Layout, block: BlockRecord) -> list[str]:
    """All names of a block."""
    names = layout.names(block)[1:-1].decode().split("/")
    if len(names) != block.file_count:
        raise ValueError("a block has more or fewer names than files")
    return names


class Directory:
    """Numbers and names of a folder's files. What it raises on a damaged file is among ``layout.DAMAGE``."""

    def __init__(self, layout: Layout, record: FolderRecord) -> None:
        """Nothing is read yet."""
        self._layout = layout
        self._plain = range(record.first_block, record.first_block + record.plain_blocks)
        self._escaped = range(self._plain.stop, self._plain.stop + record.escaped_blocks)
        self._firsts: list[str] = []
        self._blocks: dict[int, BlockRecord] = {}

    def number_of(self, name: str) -> int | None:
        """The file of that name; None also for what cannot be a name."""
        try:
            wanted = f"/{name}/".encode()
        except UnicodeEncodeError:
            return None
        if not name or "/" in name:
            return None
        if is_escaped(name):
            blocks = self._escaped
        else:
            place = self._block_before(name)
            blocks = self._plain[place : place + 1]
        for number in blocks:
            block = self._blocks.get(number)
            if block is None:
                block = self._blocks[number] = self._layout.block(number)
            names = self._layout.names(block)
            place = names.find(wanted)
            if place >= 0:
                row = names.count(b"/", 0, place)
                if row >= block.file_count:
                    raise ValueError("a block has more names than files")
                return block.first + row
        return None

    def _block_before(self, name: str) -> int:
        """The only block of plain names that may have the name: the last that does not begin after it."""
        if len(self._plain) < 2:
            return 0
        if not self._firsts:
            self._firsts = [self._first_of(number) for number in self._plain]
        return max(0, bisect_right(self._firsts, name) - 1)

    def _first_of(self, number: int) -> str:
        names = self._layout.names(self._layout.block(number))
        return names[1 : names.index(b"/", 1)].decode()

    def plain_after(self, name: str) -> Iterator[tuple[int, list[str]]]:
        """The plain names after a name in order, in pieces of consecutive files: the first's number, and the names."""
        for number in self._plain[self._block_before(name) :]:
            block = self._layout.block(number)
            names = names_of(self._layout, block)
            skipped = bisect_right(names, name) if name else 0
            if skipped < len(names):
                yield block.first + skipped, names[skipped:]

    def escaped_after(self, name: str) -> list[tuple[str, int]]:
        """The escaped names after a name in order, each with its file's number; there are hardly ever any."""
        found = []
        for number in self._escaped:
            block = self._layout.block(number)
            names = names_of(self._layout, block)
            found += [(one, block.first + row) for row, one in enumerate(names) if one > name]
        return sorted(found)
