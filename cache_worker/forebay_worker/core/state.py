"""Which chunks are where: admission, eviction, moving, pinning, leases and accounting, with no input or output.

A chunk is *reserved* (being written), *present* (may be read), or *leaving* (being removed). Room counts as
used from the reservation until the removal has been carried out, so a tier never holds more than its capacity.
Eviction never takes a chunk that a reader has pinned. While recency rules, it takes many at once, down to the low
watermark; while keeping does, only as many as the new chunk needs. A chunk that moves to another tier is copied
first: readers of the old copy finish before that goes.
"""

from dataclasses import dataclass

from forebay_protocol.keys import CHUNK_SIZE, ChunkKey
from forebay_worker.core import events as ev
from forebay_worker.core.chunk import Chunk, Phase, Tier
from forebay_worker.core.duel import Duel
from forebay_worker.core.files import Files
from forebay_worker.core.following import LEAST_SHARE
from forebay_worker.core.instructions import Granted, Instruction, Move, ReadThrough, Remove, Unlink, Wait, Write
from forebay_worker.core.order import EvictionOrder
from forebay_worker.core.placement import Placement

VICTIMS_AT_ONCE = 32
"""One admission removes at most so many chunks, so that no reader waits for all of an eviction."""


@dataclass(slots=True)
class OldCopy:
    """What a chunk has left in the tier that it moved from."""

    length: int
    pins: int


class CacheState:
    """Feed it events in any order that the instructions allow; ``validate`` holds after each."""

    def __init__(self, tiers: list[Tier], duel: Duel | None = None) -> None:
        """Begin with empty tiers, fastest first; ``duel`` when something is known of the readers."""
        self.tiers = tiers
        self.cached_bytes = 0
        self.held_bytes = 0
        self.evictions = 0
        self._chunks: dict[ChunkKey, Chunk] = {}
        self._old_copies: dict[tuple[ChunkKey, int], OldCopy] = {}
        self._order = EvictionOrder()
        self._duel = duel or Duel()
        self._placement = Placement(tiers)
        self._files = Files()
        self._moving: Chunk | None = None
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
                self.touch(chunk)
        return chunk

    def touch(self, chunk: Chunk) -> None:
        """A reader wants a chunk that may be read."""
        room = self._room_for_chunks()
        self._duel.read(chunk.key, chunk.length, room)
        self._placement.read(chunk, room)
        self._placement.passes(chunk.length)
        self._order.touch(chunk, keeping=self._duel.keeping)

    def unpin(self, chunk: Chunk, tier: int) -> list[Instruction]:
        """As Released of a chunk that was pinned in this tier; nearly free where nothing follows from it."""
        if chunk.damaged or chunk.tier != tier or self._files.doomed:
            return self.handle(ev.Released(chunk.key, tier))
        chunk.pins -= 1
        return []

    def awaited(self, key: ChunkKey, reader: str) -> None:
        """A reader waits for a chunk that is not here; who reads together tells for how long new chunks are wanted."""
        self._duel.awaited(key, reader)

    def present(self) -> list[ChunkKey]:
        """All chunks that may be read."""
        return [key for key, chunk in self._chunks.items() if chunk.phase is Phase.PRESENT and not chunk.damaged]

    def in_use(self, tier: int, object_id: str) -> bool:
        """Whether any chunk of the object is, or is about to be, in the tier; those leaving do not count."""
        return self._files.in_use((tier, object_id))

    def handle(self, event: ev.Event) -> list[Instruction]:
        """Take one event; returns what to do now."""
        match event:
            case ev.Wanted():
                instructions = self._admit(event)
            case ev.Found():
                instructions = self._found(event)
            case ev.Resized():
                self.tiers[event.tier].capacity = event.capacity
                instructions = self._shrink(event.tier)
            case ev.Lost():
                instructions = self._lose(event.tier)
            case ev.Idle():
                instructions = self._next_move()
            case ev.Leased():
                instructions = self._lease(event)
            case ev.FoundUnlinked():
                self._files.find_unlinked(set(event.leases), (event.tier, event.object_id), event.room)
                self.tiers[event.tier].used += event.room
                instructions = []
            case ev.LeaseEnded():
                instructions = self._end_lease(event.lease)
            case ev.Unlinked():
                instructions = self._unlinked(event.tier, event.object_id)
            case _:
                chunk = self._chunks.get(event.key)
                instructions = self._change_old_copy(event) if chunk is None else self._change(chunk, event)
        return instructions + self._unlink_doomed() if self._files.doomed else instructions

    def _change(self, chunk: Chunk, event: ev.ChunkEvent) -> list[Instruction]:
        if isinstance(event, ev.Released | ev.Removed) and event.tier != chunk.tier:
            return self._change_old_copy(event)
        before = chunk.length if chunk.counted else 0
        instructions: list[Instruction] = []
        match event:
            case ev.Written() if chunk.phase is Phase.RESERVED:
                chunk.phase, chunk.sums, chunk.verified = Phase.PRESENT, event.sums, True
                self._order.add(chunk, self._probation() if self._full else 0.0)
                self._placement.add(chunk)
            case ev.WriteFailed() if chunk.phase is Phase.RESERVED:
                self._files.cancel((chunk.tier, chunk.key.object_id))
                self._free(chunk)
            case ev.Removed() if chunk.phase is Phase.LEAVING:
                self._leaving_bytes -= self._room(chunk)
                self._files.gone((chunk.tier, chunk.key.object_id))
                self._free(chunk)
            case ev.Verified():
                chunk.verified = not chunk.damaged
            case ev.Damaged() if chunk.phase is Phase.PRESENT:
                chunk.damaged, chunk.verified = True, False
                instructions = self._leave_if_quiet(chunk)
            case ev.Released():
                chunk.pins = max(0, chunk.pins - 1)
                instructions = self._leave_if_quiet(chunk) if chunk.damaged else []
            case ev.Judged():
                self._judge(chunk, event)
            case ev.Moved() | ev.MoveFailed() if chunk.moving_to is not None:
                instructions = self._end_move(chunk, chunk.moving_to, moved=isinstance(event, ev.Moved))
            case _:
                # The chunk moved on before the news arrived.
                pass
        self.cached_bytes += (chunk.length if chunk.counted else 0) - before
        return instructions

    def _change_old_copy(self, event: ev.ChunkEvent) -> list[Instruction]:
        if not isinstance(event, ev.Released | ev.Removed):
            return []
        place = (event.key, event.tier)
        copy = self._old_copies.get(place)
        if copy is None:
            return []
        if isinstance(event, ev.Released):
            copy.pins -= 1
            return [] if copy.pins else [self._remove_copy(event.key, event.tier, copy.length)]
        room = self.tiers[event.tier].room_of(copy.length)
        del self._old_copies[place]
        self._files.gone((event.tier, event.key.object_id))
        self._leaving_bytes -= room
        self.tiers[event.tier].used -= room
        return []

    def _found(self, event: ev.Found) -> list[Instruction]:
        if event.key in self._chunks:
            # Fetched again while the tier was away: the copy that readers may have already stays.
            return []
        chunk = Chunk(event.key, event.tier, event.length, Phase.PRESENT, event.sums)
        self._enter(chunk)
        self._order.add(chunk, 0.0)
        self._placement.add(chunk)
        return []

    # Admission and eviction.

    def _admit(self, event: ev.Wanted) -> list[Instruction]:
        if event.key in self._chunks:
            return [ReadThrough(event.key)]
        self._duel.read(event.key, event.length, self._room_for_chunks())
        self._placement.passes(event.length)
        tier = self._tier_for(event.key, event.length)
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
        return [*victims, ReadThrough(event.key)]

    def _tier_for(self, key: ChunkKey, length: int) -> int | None:
        keeping = self._duel.keeping
        return self._placement.choose(
            key, lambda number, tier: tier.has_room(length, keeping=keeping) and self._takes(key, number)
        )

    def _takes(self, key: ChunkKey, tier: int) -> bool:
        """Whether a copy of the chunk may come into the tier: the last one has left, and its file keeps its name."""
        return (key, tier) not in self._old_copies and (tier, key.object_id) not in self._files.doomed

    def _ever_fits(self, length: int) -> bool:
        keeping = self._duel.keeping
        return any(tier.room_of(length) <= tier.ceiling(keeping=keeping) for tier in self.tiers)

    def _room_for_chunks(self) -> float:
        """Bytes that chunks may take before others have to go, over all tiers."""
        return sum(tier.ceiling(keeping=self._duel.keeping) for tier in self.tiers)

    def _probation(self) -> float:
        """Bytes that chunks may take which are not to stay; 0 when the least recently used go."""
        return self._room_for_chunks() * self._duel.probation_share if self._duel.keeping else 0.0

    def _nearly_full(self) -> bool:
        """Whether it takes less than the least probation, and a chunk that did not fit into each tier, to fill all."""
        room = self._room_for_chunks()
        return self._used() + room * LEAST_SHARE + CHUNK_SIZE * (1 + len(self.tiers)) > room

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

    def _shrink(self, number: int) -> list[Instruction]:
        """Some of the chunks that have to go because the tier holds more than it may."""
        tier = self.tiers[number]
        if not tier.capacity or tier.used <= tier.capacity:
            return []
        leaving = sum(self._room(c) for c in self._chunks.values() if c.phase is Phase.LEAVING and c.tier == number)
        return self._evict(tier.used - leaving - tier.capacity, only=number)

    def _evict(self, wanted: float, only: int | None = None) -> list[Instruction]:
        """Let chunks go until ``wanted`` bytes will be free, or it is enough at once; ``only`` of one tier."""
        victims: list[Chunk] = []
        leased: Chunk | None = None
        for chunk in self._order.leaving(self._probation()):
            if wanted <= 0 or len(victims) == VICTIMS_AT_ONCE:
                break
            if not chunk.quiet or not (self.tiers[chunk.tier].capacity if only is None else chunk.tier == only):
                continue
            if self._files.leased((chunk.tier, chunk.key.object_id)):
                leased = leased or chunk
                continue
            victims.append(chunk)
            wanted -= self._room(chunk)
        if leased is not None and not victims and wanted > 0:
            self._files.doom((leased.tier, leased.key.object_id))
        self.evictions += len(victims)
        return [self._leave(chunk) for chunk in victims]

    def _leave_if_quiet(self, chunk: Chunk) -> list[Instruction]:
        if not chunk.quiet:
            return []
        place = (chunk.tier, chunk.key.object_id)
        if self._files.leased(place):
            self._files.doom(place)
            return []
        return [self._leave(chunk)]

    def _leave(self, chunk: Chunk) -> Instruction:
        self._begin_to_leave(chunk)
        self._leaving_bytes += self._room(chunk)
        return Remove(chunk.key, chunk.tier, chunk.length)

    def _begin_to_leave(self, chunk: Chunk) -> None:
        self.cached_bytes -= chunk.length if chunk.counted else 0
        self._order.remove(chunk)
        self._placement.remove(chunk)
        chunk.phase = Phase.LEAVING
        self._files.begin_to_go((chunk.tier, chunk.key.object_id))

    def _lose(self, number: int) -> list[Instruction]:
        instructions: list[Instruction] = []
        for chunk in [one for one in self._chunks.values() if one.tier == number and one.phase is Phase.PRESENT]:
            instructions += self._change(chunk, ev.Damaged(chunk.key))
        return instructions

    # Moves between tiers.

    def _next_move(self) -> list[Instruction]:
        if self._moving is not None:
            return []
        found = self._placement.next_move(self._may_move, self._takes_move)
        if found is None:
            return []
        chunk, target = found
        self._moving, chunk.moving_to = chunk, target
        self.tiers[target].used += self.tiers[target].room_of(chunk.length)
        self._files.enter((target, chunk.key.object_id))
        return [Move(chunk.key, chunk.tier, target, chunk.length)]

    def _may_move(self, chunk: Chunk) -> bool:
        unleased = not self._files.leased((chunk.tier, chunk.key.object_id))
        return chunk.phase is Phase.PRESENT and chunk.moving_to is None and chunk.counted and unleased

    def _takes_move(self, key: ChunkKey, tier: int) -> bool:
        return self._takes(key, tier) and not self._files.leased((tier, key.object_id))

    def _end_move(self, chunk: Chunk, target: int, *, moved: bool) -> list[Instruction]:
        self._moving, chunk.moving_to = None, None
        source = chunk.tier
        if not moved:
            self.tiers[target].used -= self.tiers[target].room_of(chunk.length)
            self._files.cancel((target, chunk.key.object_id))
            return self._leave_if_quiet(chunk) if chunk.damaged else []
        if chunk.damaged or self._files.leased((source, chunk.key.object_id)):
            # Nobody knows of the new copy yet.
            self._old_copies[chunk.key, target] = OldCopy(chunk.length, 0)
            removal = self._remove_copy(chunk.key, target, chunk.length)
            return [removal, *(self._leave_if_quiet(chunk) if chunk.damaged else [])]
        self._placement.moved(chunk, target)
        self._old_copies[chunk.key, source] = OldCopy(chunk.length, chunk.pins)
        pinned, chunk.pins = chunk.pins, 0
        return [] if pinned else [self._remove_copy(chunk.key, source, chunk.length)]

    def _remove_copy(self, key: ChunkKey, tier: int, length: int) -> Instruction:
        self._files.begin_to_go((tier, key.object_id))
        self._leaving_bytes += self.tiers[tier].room_of(length)
        return Remove(key, tier, length)

    # Leases of whole files.

    def _lease(self, event: ev.Leased) -> list[Instruction]:
        place = (event.tier, event.object_id)
        arriving = self._moving
        if arriving is not None and (arriving.moving_to, arriving.key.object_id) == place:
            return []
        return [Granted(event.lease)] if self._files.lease(event.lease, place, event.chunks) else []

    def _end_lease(self, lease: str) -> list[Instruction]:
        file = self._files.end(lease)
        if file is None or file.unlinking:
            return []
        if file.room is not None:
            self.tiers[file.place[0]].used -= file.room
            return []
        # Nobody holds it any more, so that its chunks may go one by one.
        inside = [self._chunks.get(ChunkKey(file.place[1], number)) for number in range(file.chunks)]
        damaged = [chunk for chunk in inside if chunk is not None and chunk.damaged and chunk.tier == file.place[0]]
        return [one for chunk in damaged for one in self._leave_if_quiet(chunk)]

    def _unlink_doomed(self) -> list[Instruction]:
        """Unlink the files whose room is wanted as soon as nobody is at work in them but by lease."""
        instructions: list[Instruction] = []
        for (tier, object_id), file in self._files.doomed.items():
            if file.unlinking:
                continue
            keys = [ChunkKey(object_id, number) for number in range(file.chunks)]
            inside = [c for key in keys if (c := self._chunks.get(key)) and tier in (c.tier, c.moving_to)]
            if all(chunk.quiet for chunk in inside) and not any((key, tier) in self._old_copies for key in keys):
                for chunk in inside:
                    self._begin_to_leave(chunk)
                room = sum(self._room(chunk) for chunk in inside)
                file.unlinking = True
                self.evictions += len(inside)
                instructions.append(Unlink(tier, object_id, tuple(chunk.key for chunk in inside), room))
        return instructions

    def _unlinked(self, tier: int, object_id: str) -> list[Instruction]:
        file = self._files.doomed[tier, object_id]
        room = 0
        for number in range(file.chunks):
            chunk = self._chunks.get(ChunkKey(object_id, number))
            if chunk is not None and chunk.phase is Phase.LEAVING and chunk.tier == tier:
                room += self._room(chunk)
                self._files.gone((tier, object_id))
                self._free(chunk)
        if self._files.unlinked((tier, object_id), room):
            self.tiers[tier].used += room
        return []

    # Accounts.

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
        self._files.enter((chunk.tier, chunk.key.object_id))

    def _free(self, chunk: Chunk) -> None:
        del self._chunks[chunk.key]
        self.tiers[chunk.tier].used -= self._room(chunk)
        self.held_bytes -= chunk.length

    def validate(self) -> None:
        """Raise AssertionError unless all invariants hold."""
        chunks = self._chunks.values()
        for number, tier in enumerate(self.tiers):
            lengths = [chunk.length for chunk in chunks if number in (chunk.tier, chunk.moving_to)]
            lengths += [copy.length for (_, place), copy in self._old_copies.items() if place == number]
            assert tier.used == sum(map(tier.room_of, lengths)) + self._files.unlinked_room(number)
        assert self.held_bytes == sum(chunk.length for chunk in chunks)
        present = {key for key, chunk in self._chunks.items() if chunk.phase is Phase.PRESENT}
        assert present == self._order.keys() == self._placement.keys()
        self._order.validate()
        assert self.cached_bytes == sum(chunk.length for chunk in chunks if chunk.counted)
        assert not any(chunk.pins for chunk in chunks if chunk.phase is not Phase.PRESENT)
        assert [chunk for chunk in chunks if chunk.moving_to is not None] == ([self._moving] if self._moving else [])
        staying = [chunk for chunk in chunks if chunk.phase is not Phase.LEAVING]
        pinned = [copy for copy in self._old_copies.values() if copy.pins]
        stay, go = self._files.copies()
        assert stay == len(staying) + len(pinned) + (self._moving is not None)
        assert go == len(chunks) - len(staying) + len(self._old_copies) - len(pinned)
        assert all(self.in_use(chunk.tier, chunk.key.object_id) for chunk in staying)
