"""Which chunks are where: admission, eviction, pinning and accounting, with no input or output.

A chunk is *reserved* (being written), *present* (may be read), or *leaving* (being removed). Room counts as
used from the reservation until the removal has been carried out, so a tier never holds more than its capacity.
Eviction takes chunks that are of no use to the current generation and ring first, then the least recently
used of all tiers; never one that a reader has pinned.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto

from forebay_protocol.keys import ChunkKey
from forebay_worker.core import events as ev
from forebay_worker.core.instructions import Instruction, ReadThrough, Remove, Wait, Write

VICTIMS_AT_ONCE = 32
"""One admission removes at most so many chunks, so that no reader waits for all of an eviction."""


class Phase(Enum):
    """Where a chunk is in its life."""

    RESERVED = auto()
    PRESENT = auto()
    LEAVING = auto()


@dataclass(slots=True)
class Chunk:
    """What is known of one chunk. ``sums`` are its blocks' checksums as the wire carries them."""

    key: ChunkKey
    tier: int
    length: int
    phase: Phase
    sums: bytes = b""
    verified: bool = False
    current: bool = True
    owned: bool = True
    pins: int = 0
    damaged: bool = False

    @property
    def counted(self) -> bool:
        """Whether it belongs to the worker's share of the current generation, and is known to be right."""
        return self.phase is Phase.PRESENT and self.verified and self.current and self.owned


@dataclass(slots=True)
class Tier:
    """Room of one tier in bytes; ``high`` and ``low`` are shares of the capacity.

    Chunks take whole blocks of ``block`` bytes, as they do on disk: many small ones need more than they hold.
    """

    capacity: int
    high: float
    low: float
    block: int = 1
    used: int = 0

    def room_of(self, length: int) -> int:
        """What a chunk of that length takes."""
        return -(-length // self.block) * self.block

    def has_room(self, length: int) -> bool:
        """Whether the chunk fits below the high watermark."""
        return self.used + self.room_of(length) <= self.capacity * self.high


class CacheState:
    """Feed it events in any order that the instructions allow; ``validate`` holds after each."""

    def __init__(self, tiers: list[Tier]) -> None:
        """Begin with empty tiers, fastest first."""
        self.tiers = tiers
        self.cached_bytes = 0
        self.held_bytes = 0
        self.evictions = 0
        self._chunks: dict[ChunkKey, Chunk] = {}
        self._useful: OrderedDict[ChunkKey, Chunk] = OrderedDict()
        self._spare: OrderedDict[ChunkKey, Chunk] = OrderedDict()
        self._objects: dict[tuple[int, str], int] = {}
        self._leaving_bytes = 0
        self._draining = False

    def peek(self, key: ChunkKey) -> Chunk | None:
        """The chunk if it may be read; changes nothing."""
        chunk = self._chunks.get(key)
        return chunk if chunk is not None and chunk.phase is Phase.PRESENT and not chunk.damaged else None

    def pin(self, key: ChunkKey, *, touch: bool = True) -> Chunk | None:
        """The chunk if it may be read, held until Released; ``touch`` makes it the most recently used."""
        chunk = self.peek(key)
        if chunk is not None:
            chunk.pins += 1
            if touch:
                self._order(chunk).move_to_end(key)
        return chunk

    def present(self) -> list[ChunkKey]:
        """All chunks that may be read."""
        return [key for key, chunk in self._chunks.items() if chunk.phase is Phase.PRESENT and not chunk.damaged]

    def in_use(self, tier: int, object_id: str) -> bool:
        """Whether any chunk of the object is, or is about to be, in the tier; those leaving do not count."""
        return (tier, object_id) in self._objects

    def handle(self, event: ev.Event) -> list[Instruction]:
        """Take one event; returns what to do now."""
        match event:
            case ev.Wanted():
                return self._admit(event)
            case ev.Found():
                return self._found(event)
            case ev.Resized():
                self.tiers[event.tier].capacity = event.capacity
                return []
            case _:
                chunk = self._chunks.get(event.key)
                return [] if chunk is None else self._change(chunk, event)

    def _change(
        self,
        chunk: Chunk,
        event: ev.Written | ev.WriteFailed | ev.Removed | ev.Verified | ev.Damaged | ev.Released | ev.Judged,
    ) -> list[Instruction]:
        before = chunk.length if chunk.counted else 0
        instructions: list[Instruction] = []
        match event:
            case ev.Written() if chunk.phase is Phase.RESERVED:
                chunk.phase, chunk.sums, chunk.verified = Phase.PRESENT, event.sums, True
                self._order(chunk)[chunk.key] = chunk
            case ev.WriteFailed() if chunk.phase is Phase.RESERVED:
                self._forget_object(chunk)
                self._free(chunk)
            case ev.Removed() if chunk.phase is Phase.LEAVING:
                self._leaving_bytes -= self._room(chunk)
                self._free(chunk)
            case ev.Verified():
                chunk.verified = not chunk.damaged
            case ev.Damaged() if chunk.phase is Phase.PRESENT:
                chunk.damaged, chunk.verified = True, False
                instructions = self._leave_if_unpinned(chunk)
            case ev.Released():
                chunk.pins = max(0, chunk.pins - 1)
                instructions = self._leave_if_unpinned(chunk) if chunk.damaged else []
            case ev.Judged():
                self._judge(chunk, event)
            case _:
                # The chunk moved on before the news arrived.
                pass
        self.cached_bytes += (chunk.length if chunk.counted else 0) - before
        return instructions

    def _found(self, event: ev.Found) -> list[Instruction]:
        if event.key in self._chunks:
            # Fetched again while the tier was away: the copy that readers may have already stays.
            return []
        chunk = Chunk(event.key, event.tier, event.length, Phase.PRESENT, event.sums)
        self._enter(chunk)
        self._order(chunk)[chunk.key] = chunk
        return []

    def _admit(self, event: ev.Wanted) -> list[Instruction]:
        if event.key in self._chunks:
            return [ReadThrough(event.key)]
        tier = self._tier_for(event.length)
        if tier is None:
            self._draining = True
        victims = self._victims() if self._draining else []
        if tier is not None:
            self._enter(Chunk(event.key, tier, event.length, Phase.RESERVED))
            return [*victims, Write(event.key, tier)]
        if self._leaving_bytes:
            return [*victims, Wait(event.key)]
        return [ReadThrough(event.key)]

    def _tier_for(self, length: int) -> int | None:
        return next((number for number, tier in enumerate(self.tiers) if tier.has_room(length)), None)

    def _victims(self) -> list[Instruction]:
        """Some of the chunks that have to go until the pool is at its low watermark."""
        working = {number for number, tier in enumerate(self.tiers) if tier.capacity}
        target = sum(self.tiers[number].capacity * self.tiers[number].low for number in working)
        staying = sum(self.tiers[number].used for number in working) - self._leaving_bytes
        victims: list[Chunk] = []
        for order in (self._spare, self._useful):
            for chunk in order.values():
                if staying <= target or len(victims) == VICTIMS_AT_ONCE:
                    break
                if not chunk.pins and chunk.tier in working:
                    victims.append(chunk)
                    staying -= self._room(chunk)
        self._draining = staying > target and bool(victims)
        self.evictions += len(victims)
        return [self._leave(chunk) for chunk in victims]

    def _leave_if_unpinned(self, chunk: Chunk) -> list[Instruction]:
        return [] if chunk.pins or chunk.phase is not Phase.PRESENT else [self._leave(chunk)]

    def _leave(self, chunk: Chunk) -> Instruction:
        self.cached_bytes -= chunk.length if chunk.counted else 0
        del self._order(chunk)[chunk.key]
        chunk.phase = Phase.LEAVING
        self._leaving_bytes += self._room(chunk)
        self._forget_object(chunk)
        return Remove(chunk.key, chunk.tier, chunk.length)

    def _judge(self, chunk: Chunk, event: ev.Judged) -> None:
        before = self._order(chunk)
        chunk.current, chunk.owned = event.current, event.owned
        chunk_order = self._spare if event.spare else self._useful
        if chunk.phase is Phase.PRESENT and chunk_order is not before:
            del before[chunk.key]
            chunk_order[chunk.key] = chunk

    def _room(self, chunk: Chunk) -> int:
        return self.tiers[chunk.tier].room_of(chunk.length)

    def _order(self, chunk: Chunk) -> OrderedDict[ChunkKey, Chunk]:
        return self._spare if chunk.key in self._spare else self._useful

    def _enter(self, chunk: Chunk) -> None:
        self._chunks[chunk.key] = chunk
        self.tiers[chunk.tier].used += self._room(chunk)
        self.held_bytes += chunk.length
        place = (chunk.tier, chunk.key.object_id)
        self._objects[place] = self._objects.get(place, 0) + 1

    def _forget_object(self, chunk: Chunk) -> None:
        place = (chunk.tier, chunk.key.object_id)
        self._objects[place] -= 1
        if not self._objects[place]:
            del self._objects[place]

    def _free(self, chunk: Chunk) -> None:
        del self._chunks[chunk.key]
        self.tiers[chunk.tier].used -= self._room(chunk)
        self.held_bytes -= chunk.length

    def validate(self) -> None:
        """Raise AssertionError unless all invariants hold."""
        for number, tier in enumerate(self.tiers):
            held = [chunk for chunk in self._chunks.values() if chunk.tier == number]
            assert tier.used == sum(tier.room_of(chunk.length) for chunk in held)
        assert self.held_bytes == sum(chunk.length for chunk in self._chunks.values())
        present = {key for key, chunk in self._chunks.items() if chunk.phase is Phase.PRESENT}
        assert present == self._useful.keys() | self._spare.keys()
        assert not self._useful.keys() & self._spare.keys()
        assert self.cached_bytes == sum(chunk.length for chunk in self._chunks.values() if chunk.counted)
        assert not any(chunk.pins for chunk in self._chunks.values() if chunk.phase is not Phase.PRESENT)
        staying = [chunk for chunk in self._chunks.values() if chunk.phase is not Phase.LEAVING]
        assert self._leaving_bytes == sum(self._room(c) for c in self._chunks.values() if c.phase is Phase.LEAVING)
        assert sum(self._objects.values()) == len(staying)
        assert all(self.in_use(chunk.tier, chunk.key.object_id) for chunk in staying)
