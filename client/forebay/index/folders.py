"""The folders of an index while it is written: first in the order in which they appear, then in that of the file."""

from array import array
from collections.abc import Iterator
from itertools import pairwise

from forebay.index.inodes import ROOT_INODE, stable_inode
from forebay.index.layout import NO_MOUNT
from forebay_protocol.errors import SourceInvalid


class Folders:
    """Folders by path: empty for the root, else with a slash before each name."""

    def __init__(self) -> None:
        """There is only the root."""
        self._numbers = {"": 0}
        self._paths = [""]
        self._mounts = array("I", [NO_MOUNT])
        self._children: dict[int, list[int]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._paths)

    def number(self, path: str) -> int:
        """A folder's number in the order of appearance; it is added, with all above it, where it is new."""
        number = self._numbers.get(path)
        if number is None:
            parent = self.number(path.rpartition("/")[0])
            number = self._numbers[path] = len(self._paths)
            self._paths.append(path)
            self._mounts.append(NO_MOUNT)
            self._children.setdefault(parent, []).append(number)
        return number

    def belongs(self, number: int, mount: int) -> None:
        """The folder has files of this mount."""
        self._mounts[number] = mount

    def path(self, number: int) -> str:
        """The path of a folder."""
        return self._paths[number]

    def mount(self, number: int) -> int:
        """Whose files it has; NO_MOUNT for a folder without any."""
        return self._mounts[number]

    def breadth_first(self) -> Iterator[tuple[int, list[int]]]:
        """All folders in the order of the file, with those in each in the order of their names."""
        waiting = [0]
        for number in waiting:
            children = sorted(self._children.get(number, ()), key=self._paths.__getitem__)
            yield number, children
            waiting += children

    def inodes(self, order: list[int]) -> tuple["array[int]", "array[int]"]:
        """Their inodes, ascending, and which place in the order has each; SourceInvalid where two have the same one."""
        found = sorted(
            (stable_inode(self._paths[number], "") if number else ROOT_INODE, place)
            for place, number in enumerate(order)
        )
        for (inode, place), (following, other) in pairwise(found):
            if inode == following:
                paths = (self._paths[order[place]], self._paths[order[other]])
                raise SourceInvalid(f"the folders {paths[0]} and {paths[1]} have the same hash; rename one of them")
        return array("Q", [inode for inode, _ in found]), array("I", [place for _, place in found])
