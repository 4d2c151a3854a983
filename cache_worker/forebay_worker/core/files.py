"""The files of all tiers: what is in them, and who holds them open by leases.

A lease is a promise to somebody who has the file's descriptor: no byte of the file changes under them. So a file with a
lease is never punched. When its room is wanted it loses its name, and its room stays in use until its last lease ends.
"""

from dataclasses import dataclass, field

Place = tuple[int, str]
"""A tier's number and an object's id: one file."""


@dataclass(slots=True)
class LeasedFile:
    """A file with leases. ``chunks`` is how many its object has; ``room`` is set once it has no name any more."""

    place: Place
    chunks: int
    leases: set[str] = field(default_factory=set)
    unlinking: bool = False
    room: int | None = None


class Files:
    """Counts of copies by file, and leases."""

    def __init__(self) -> None:
        """Begin with no files."""
        self._staying: dict[Place, int] = {}
        self._going: dict[Place, int] = {}
        self._named: dict[Place, LeasedFile] = {}
        self._by_lease: dict[str, LeasedFile] = {}
        self.doomed: dict[Place, LeasedFile] = {}

    def enter(self, place: Place) -> None:
        """A copy of a chunk comes into the file."""
        self._staying[place] = self._staying.get(place, 0) + 1

    def begin_to_go(self, place: Place) -> None:
        """A copy begins to leave."""
        _less(self._staying, place)
        self._going[place] = self._going.get(place, 0) + 1

    def gone(self, place: Place) -> None:
        """A copy that was leaving has left."""
        _less(self._going, place)

    def cancel(self, place: Place) -> None:
        """A copy that was to come does not."""
        _less(self._staying, place)

    def in_use(self, place: Place) -> bool:
        """Whether any copy is, or is about to be, in the file; those leaving do not count."""
        return place in self._staying

    def leased(self, place: Place) -> bool:
        """Whether somebody has a lease of the file that has this name."""
        return place in self._named

    def lease(self, lease: str, place: Place, chunks: int) -> bool:
        """Begin a lease; False while the file loses chunks or its name."""
        if place in self._going or place in self.doomed or place not in self._staying:
            return False
        file = self._named.setdefault(place, LeasedFile(place, chunks))
        file.leases.add(lease)
        self._by_lease[lease] = file
        return True

    def find_unlinked(self, leases: set[str], place: Place, room: int) -> None:
        """An earlier run left a file without a name, and these leases of it."""
        file = LeasedFile(place, 0, leases, room=room)
        self._by_lease.update(dict.fromkeys(leases, file))

    def doom(self, place: Place) -> None:
        """The file is to lose its name as soon as nobody writes or reads in it but by lease."""
        self.doomed[place] = self._named[place]

    def unlinked(self, place: Place, room: int) -> bool:
        """The file has no name any more; whether somebody has a lease still, so that ``room`` stays in use."""
        file = self.doomed.pop(place)
        self._named.pop(place, None)
        file.unlinking = False
        file.room = room
        return bool(file.leases)

    def end(self, lease: str) -> LeasedFile | None:
        """A lease ends; the file if that was its last one."""
        file = self._by_lease.pop(lease, None)
        if file is None:
            return None
        file.leases.discard(lease)
        if file.leases:
            return None
        if file.room is None:
            del self._named[file.place]
            if not file.unlinking:
                self.doomed.pop(file.place, None)
        return file

    def unlinked_room(self, tier: int) -> int:
        """What files without a name take in a tier."""
        files = {id(file): file for file in self._by_lease.values()}
        return sum(file.room or 0 for file in files.values() if file.place[0] == tier)

    def copies(self) -> tuple[int, int]:
        """How many copies stay and how many leave."""
        return sum(self._staying.values()), sum(self._going.values())


def _less(counts: dict[Place, int], place: Place) -> None:
    counts[place] -= 1
    if not counts[place]:
        del counts[place]
