"""Which chunks are where: admission, eviction, pinning and accounting, with no input or output.

A chunk is *reserved* (being written), *present* (may be read), or *leaving* (being removed). Room counts as
used from the reservation until the removal has been carried out, so a tier never holds more than its capacity.
Eviction never takes a chunk that a reader has pinned. While recency rules, it takes many at once, down to the low
watermark; while keeping does, only as many as the new chunk needs.
"""

from forebay_protocol.keys import CHUNK_SIZE, ChunkKey
from forebay_worker.core import events as ev
from forebay_worker.core.chunk import Chunk, Phase, Tier
from forebay_worker.core.duel import Duel
from forebay_worker.core.instructions import Instruction, ReadThrough, Remove, Wait, Write
from forebay_worker.core.order import PROBATION_SHARE, EvictionOrder

VICTIMS_AT_ONCE = 32
"""One admission removes at most so many chunks, so that no reader waits for all of an eviction."""


class CacheState:
    """Feed it events in any order that the instructions allow; ``validate`` holds after each."""

    def __init__(self, tiers: list[Tier], duel: Duel | None = None) -> None:
        """Begin with empty tiers, fastest first; ``duel`` when something is known of the readers."""
        self.tiers = tiers
        self.cached_bytes = 0
        self.held_bytes = 0
        self.evictions = 0
        self._chunks: dict[ChunkKey, Chunk] = {}
        self._order = EvictionOrder()
        self._duel = duel or Duel()
        self._objects: dict[tuple[int, str], int] = {}
        self._leaving_bytes = 0
        self._draining = False
        self._full = False

    def peek(self, key: ChunkKey) -> Chunk | None:
        """The chunk if it may be read; changes nothing."""
        chunk = self._chunks.get(key)
        return chunk if chunk is not None and chunk.phase is Phase.PRESENT and not chunk.damaged else None

    def pin(self, key: ChunkKey, *, touch: bool = True) -> Chunk | None:
        """The chunk if it may be read, held until Released; ``touch`` tells that a reader wants it."""
        chunk = self.peek(key)
        if chunk is not None:
            chunk.pins += 1
            if touch:
                self._duel.read(key, chunk.length, self._room_for_chunks())
                self._order.touch(chunk, keeping=self._duel.keeping)
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
                self._order.add(chunk, on_probation=self._full and self._duel.keeping)
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
        self._order.add(chunk, on_probation=False)
        return []

    def _admit(self, event: ev.Wanted) -> list[Instruction]:
        if event.key in self._chunks:
            return [ReadThrough(event.key)]
        self._duel.read(event.key, event.length, self._room_for_chunks())
        tier = self._tier_for(event.length)
        if tier is None and not self._ever_fits(event.length):
            return [ReadThrough(event.key)]
        self._full = tier is None or (self._full and self._nearly_full())
        if self._duel.keeping:
            victims = [] if tier is not None else self._make_way(event.length)
        else:
            self._draining |= tier is None
            victims = self._drain() if self._draining else []
        if tier is not None:
            self._enter(Chunk(event.key, tier, event.length, Phase.RESERVED))
            return [*victims, Write(event.key, tier)]
        if self._leaving_bytes:
            return [*victims, Wait(event.key)]
        return [ReadThrough(event.key)]

    def _tier_for(self, length: int) -> int | None:
        keeping = self._duel.keeping
        return next((number for number, tier in enumerate(self.tiers) if tier.has_room(length, keeping=keeping)), None)

    def _ever_fits(self, length: int) -> bool:
        keeping = self._duel.keeping
        return any(tier.room_of(length) <= tier.ceiling(keeping=keeping) for tier in self.tiers)

    def _room_for_chunks(self) -> float:
        """Bytes that chunks may take before others have to go, over all tiers."""
        return sum(tier.ceiling(keeping=self._duel.keeping) for tier in self.tiers)

    def _nearly_full(self) -> bool:
        """Whether it takes less than what is on probation, and a chunk that did not fit into each tier, to fill all."""
        room = self._room_for_chunks()
        return self._used() + room / PROBATION_SHARE + CHUNK_SIZE * (1 + len(self.tiers)) > room

    def _used(self) -> int:
        return sum(tier.used for tier in self.tiers if tier.capacity)

    def _make_way(self, length: int) -> list[Instruction]:
        """Enough of the chunks for one of ``length`` bytes, unless others make that much room already."""
        wanted = max(length, self._used() + length - self._room_for_chunks())
        return self._evict(wanted - self._leaving_bytes)

    def _drain(self) -> list[Instruction]:
        """Some of the chunks that have to go until the pool is at its low watermark."""
        target = sum(tier.capacity * tier.low for tier in self.tiers)
        victims = self._evict(self._used() - self._leaving_bytes - target)
        self._draining = len(victims) == VICTIMS_AT_ONCE
        return victims

    def _evict(self, wanted: float) -> list[Instruction]:
        """Let chunks go until ``wanted`` bytes will be free, or it is enough at once."""
        victims: list[Chunk] = []
        for chunk in self._order.leaving(self._room_for_chunks(), keeping=self._duel.keeping):
            if wanted <= 0 or len(victims) == VICTIMS_AT_ONCE:
                break
            if not chunk.pins and self.tiers[chunk.tier].capacity:
                victims.append(chunk)
                wanted -= self._room(chunk)
        self.evictions += len(victims)
        return [self._leave(chunk) for chunk in victims]

    def _leave_if_unpinned(self, chunk: Chunk) -> list[Instruction]:
        return [] if chunk.pins or chunk.phase is not Phase.PRESENT else [self._leave(chunk)]

    def _leave(self, chunk: Chunk) -> Instruction:
        self.cached_bytes -= chunk.length if chunk.counted else 0
        self._order.remove(chunk)
        chunk.phase = Phase.LEAVING
        self._leaving_bytes += self._room(chunk)
        self._forget_object(chunk)
        return Remove(chunk.key, chunk.tier, chunk.length)

    def _judge(self, chunk: Chunk, event: ev.Judged) -> None:
        chunk.current, chunk.owned = event.current, event.owned
        if chunk.phase is Phase.PRESENT:
            self._order.judge(chunk, spare=event.spare)

    def _room(self, chunk: Chunk) -> int:
        return self.tiers[chunk.tier].room_of(chunk.length)

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
        assert present == self._order.keys()
        self._order.validate()
        assert self.cached_bytes == sum(chunk.length for chunk in self._chunks.values() if chunk.counted)
        assert not any(chunk.pins for chunk in self._chunks.values() if chunk.phase is not Phase.PRESENT)
        staying = [chunk for chunk in self._chunks.values() if chunk.phase is not Phase.LEAVING]
        assert self._leaving_bytes == sum(self._room(c) for c in self._chunks.values() if c.phase is Phase.LEAVING)
        assert sum(self._objects.values()) == len(staying)
        assert all(self.in_use(chunk.tier, chunk.key.object_id) for chunk in staying)
