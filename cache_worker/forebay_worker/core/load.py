"""What a load wants of this worker and how far it is. No input or output."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from forebay_protocol.keys import ChunkKey, ObjectVersion


class PlannedChunk(NamedTuple):
    """A chunk of this worker's share, and the number of its file in the selection."""

    file: int
    object: ObjectVersion
    number: int
    length: int

    @property
    def key(self) -> ChunkKey:
        """The chunk's name."""
        return ChunkKey(self.object.object_id, self.number)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The selection at one generation and ring, and this worker's share of it in index order."""

    generation: int
    epoch: int
    total_files: int
    total_bytes: int
    own: tuple[PlannedChunk, ...]
    own_bytes: int


class Presence(NamedTuple):
    """What of a plan is here: bytes, one bit per file that misses nothing, and the chunks that are missing."""

    present_bytes: int
    complete_files: bytes
    missing: tuple[PlannedChunk, ...]


def make_plan(
    generation: int, epoch: int, files: Iterable[ObjectVersion], owns: Callable[[ChunkKey], bool]
) -> LoadPlan:
    """Choose this worker's share of the files, which come in index order."""
    own: list[PlannedChunk] = []
    count = total = own_bytes = 0
    for one in files:
        for number in one.chunks():
            if owns(ChunkKey(one.object_id, number)):
                length = one.chunk_span(number).length
                own.append(PlannedChunk(count, one, number, length))
                own_bytes += length
        count += 1
        total += one.size
    return LoadPlan(generation, epoch, count, total, tuple(own), own_bytes)


def look(plan: LoadPlan, is_present: Callable[[ChunkKey], bool]) -> Presence:
    """Compare the plan with what is here."""
    bits = bytearray(b"\xff" * (plan.total_files // 8))
    if rest := plan.total_files % 8:
        bits.append((0xFF00 >> rest) & 0xFF)
    present = 0
    missing: list[PlannedChunk] = []
    for chunk in plan.own:
        if is_present(chunk.key):
            present += chunk.length
        else:
            missing.append(chunk)
            bits[chunk.file // 8] &= ~(0x80 >> chunk.file % 8) & 0xFF
    return Presence(present, bytes(bits), tuple(missing))


def what_fits(missing: Iterable[PlannedChunk], room: int) -> list[PlannedChunk]:
    """The first of the missing chunks that fit into ``room`` bytes."""
    chosen: list[PlannedChunk] = []
    for chunk in missing:
        room -= chunk.length
        if room < 0:
            break
        chosen.append(chunk)
    return chosen
