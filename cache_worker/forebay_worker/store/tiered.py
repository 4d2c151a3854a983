"""The chunk store over all tiers: carries out what the pure state decides, under one lock.

The lock is held for decisions only, never during input or output. A lease pins its chunk until it is released.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import structlog

from forebay_protocol.control import Problem, TierStatus
from forebay_protocol.keys import CHUNK_SIZE, ChunkKey, ObjectVersion
from forebay_worker.core import events as ev
from forebay_worker.core.chunk import Chunk, Tier
from forebay_worker.core.instructions import Instruction, Remove, Wait, Write
from forebay_worker.core.state import CacheState
from forebay_worker.metrics import Metrics
from forebay_worker.settings import TierSettings
from forebay_worker.store.checksums import block_sums
from forebay_worker.store.tier import StorageTier

_ROOM_PATIENCE = 5.0
"""Seconds to wait for others who are making room before a chunk is read through."""

_FILE_BLOCK = 4096
"""What the file systems of tiers hand out at the least."""

_NOT_OPEN = Problem(reason="TierNotUsable", message="the tier was not opened yet")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a chunk is worth now: shown by the newest generation, owned by this worker, first to go."""

    current: bool
    owned: bool
    spare: bool


Judge = Callable[[ObjectVersion, int], Judgement]


class Lease:
    """A chunk that may be read from ``fd`` at ``offset`` until ``release``; not to be shared by threads."""

    def __init__(self, store: "ChunkStore", chunk: Chunk, fd: int) -> None:
        """Takes over the pin and the descriptor."""
        self._store = store
        self._chunk = chunk
        self.key = chunk.key
        self.fd = fd
        self.tier = chunk.tier
        self.offset = chunk.key.number * CHUNK_SIZE
        self.length = chunk.length
        self.sums = chunk.sums

    def release(self) -> None:
        """Close the descriptor and let the chunk go."""
        os.close(self.fd)
        self._store.apply(ev.Released(self.key))

    def damaged(self) -> None:
        """Say that the bytes are not what they should be."""
        self._store.damaged(self._chunk)


class ChunkStore:
    """Chunks of one dataset. Thread-safe."""

    def __init__(self, tiers: tuple[TierSettings, ...], dataset: str, metrics: Metrics) -> None:
        """Open all tiers and take over what survived there; it is verified when it is first used.

        A tier that cannot be opened is left out, says so in its status, and is tried again with every ``measure``.
        """
        self._metrics = metrics
        self._settings = tiers
        self._tiers: list[StorageTier | Problem] = [_NOT_OPEN for _ in tiers]
        self._state = CacheState([Tier(0, tier.high, tier.low, _FILE_BLOCK) for tier in tiers])
        self._lock = threading.Lock()
        self._room_made = threading.Condition(self._lock)
        self._objects: dict[str, ObjectVersion] = {}
        self.dataset = dataset
        self.corrupt_chunks = 0
        self._closed = False
        self.measure()

    def _tier(self, number: int) -> StorageTier:
        """An open tier; the state places chunks in no other."""
        tier = self._tiers[number]
        assert isinstance(tier, StorageTier)
        return tier

    def _open(self, number: int) -> StorageTier | None:
        settings = self._settings[number]
        try:
            tier = StorageTier(settings, self.dataset)
            survivors = tier.recover()
        except (OSError, sqlite3.Error) as error:
            self._tiers[number] = Problem(
                reason="TierNotUsable",
                message=f"the {settings.medium} tier cannot be opened ({error}); it is not used; "
                "let its volume be writable for the worker's user",
            )
            _log.warning("tier cannot be opened", medium=settings.medium, error=str(error))
            return None
        self._tiers[number] = tier
        for one, index, length, sums in survivors:
            key = ChunkKey(one.object_id, index)
            with self._lock:
                self._objects[one.object_id] = one
                elsewhere = self._state.peek(key) is not None
                self._state.handle(ev.Found(key, number, length, sums))
            if elsewhere:
                # Fetched again while this tier was away.
                tier.forget(key)
                tier.files.remove(key, length, partial(self._in_use, number, one.object_id))
        return tier

    def lease(self, key: ChunkKey) -> Lease | None:
        """The chunk, verified since the start and pinned; None when it is not here."""
        lease, verified = self._pin(key, touch=True)
        if lease is None or verified or self._verify(lease):
            return lease
        lease.release()
        return None

    def _pin(self, key: ChunkKey, *, touch: bool) -> tuple[Lease | None, bool]:
        """The chunk pinned, and whether it is verified."""
        with self._lock:
            chunk = self._state.pin(key, touch=touch)
            verified = chunk is not None and chunk.verified
        if chunk is None:
            return None, False
        try:
            fd = self._tier(chunk.tier).files.open(key.object_id)
        except OSError:
            self.damaged(chunk)
            self.apply(ev.Released(key))
            return None, False
        return Lease(self, chunk, fd), verified

    def _verify(self, lease: Lease) -> bool:
        try:
            data = os.pread(lease.fd, lease.length, lease.offset)
        except OSError:
            data = b""
        if len(data) == lease.length and block_sums(memoryview(data)) == lease.sums:
            self.apply(ev.Verified(lease.key))
            return True
        lease.damaged()
        return False

    def check(self, key: ChunkKey) -> int:
        """Read a chunk and compare it with its checksums; damage is dealt with. Returns the bytes read."""
        lease, _ = self._pin(key, touch=False)
        if lease is None:
            return 0
        try:
            self._verify(lease)
        finally:
            lease.release()
        return lease.length

    def check_presence(self, key: ChunkKey) -> None:
        """Look, without reading, whether the chunk's bytes are still in its file."""
        with self._lock:
            chunk = self._state.peek(key)
        if chunk is not None and not self._tier(chunk.tier).is_there(key, chunk.length):
            self.damaged(chunk)

    def damaged(self, chunk: Chunk) -> None:
        """Never serve this chunk again; it is removed when its last reader is done.

        The verdict is about this very copy: by now another one may be in its place.
        """
        with self._lock:
            if self._state.peek(chunk.key) is not chunk:
                return
            self.corrupt_chunks += 1
            instructions = self._state.handle(ev.Damaged(chunk.key))
        self._metrics.corrupt_chunks.inc()
        _log.warning("chunk damaged or gone", object=chunk.key.object_id, chunk=chunk.key.number)
        self._carry_out(instructions)

    def put(self, one: ObjectVersion, number: int, data: memoryview, sums: bytes, judge: Judge) -> bool:
        """Keep a chunk; False when it is not kept, because there is no room or the disk refuses."""
        key = ChunkKey(one.object_id, number)
        tier = self._reserve(key, len(data))
        if tier is None:
            return False
        with self._lock:
            self._objects[one.object_id] = one
        if not self._tier(tier).write(one, number, data, sums):
            self.apply(ev.WriteFailed(key))
            self.measure()
            return False
        self.apply(ev.Written(key, sums))
        self.judge(key, judge)
        return True

    def _reserve(self, key: ChunkKey, length: int) -> int | None:
        deadline = time.monotonic() + _ROOM_PATIENCE
        while True:
            instructions = self.apply(ev.Wanted(key, length))
            for instruction in instructions:
                if isinstance(instruction, Write):
                    return instruction.tier
            waiting = any(isinstance(instruction, Wait) for instruction in instructions)
            if not waiting or time.monotonic() > deadline:
                return None
            if not any(isinstance(instruction, Remove) for instruction in instructions):
                with self._room_made:
                    self._room_made.wait(timeout=0.1)

    def apply(self, event: ev.Event) -> list[Instruction]:
        """Feed one event to the state and carry out the removals that it asks for."""
        with self._lock:
            before = self._state.evictions
            instructions = self._state.handle(event)
            self._metrics.evictions.inc(self._state.evictions - before)
        self._carry_out(instructions)
        return instructions

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Remove):
                self._remove(instruction)

    def _remove(self, instruction: Remove) -> None:
        key, tier = instruction.key, self._tier(instruction.tier)
        tier.forget(key)
        try:
            tier.files.remove(key, instruction.length, lambda: self._in_use(instruction.tier, key.object_id))
        except OSError as error:
            _log.warning("chunk's room not freed", object=key.object_id, chunk=key.number, error=str(error))
        with self._room_made:
            self._state.handle(ev.Removed(key))
            if not any(self._state.in_use(number, key.object_id) for number in range(len(self._tiers))):
                self._objects.pop(key.object_id, None)
            self._room_made.notify_all()

    def _in_use(self, tier: int, object_id: str) -> bool:
        with self._lock:
            return self._state.in_use(tier, object_id)

    def judge(self, key: ChunkKey, judge: Judge) -> None:
        """Decide anew what one chunk is worth."""
        with self._lock:
            one = self._objects.get(key.object_id)
        if one is not None:
            found = judge(one, key.number)
            self.apply(ev.Judged(key, found.current, found.owned, found.spare))

    def present(self) -> list[ChunkKey]:
        """All chunks that may be read."""
        with self._lock:
            return self._state.present()

    def unverified(self) -> Iterator[ChunkKey]:
        """The chunks that nobody has verified since the start."""
        for key in self.present():
            with self._lock:
                chunk = self._state.peek(key)
            if chunk is not None and not chunk.verified:
                yield key

    def has_verified(self, key: ChunkKey) -> bool:
        """Whether the chunk is here and known to be right."""
        with self._lock:
            chunk = self._state.peek(key)
            return chunk is not None and chunk.verified

    def measure(self) -> None:
        """Look at the tiers' file systems and set the capacities in force."""
        if self._closed:
            # Somebody still fills: a tier must not be opened once more for that.
            return
        for number, settings in enumerate(self._settings):
            known = self._tiers[number]
            tier = known if isinstance(known, StorageTier) else self._open(number)
            with self._lock:
                used = self._state.tiers[number].used
            capacity = 0 if tier is None else tier.measure(used)
            self.apply(ev.Resized(number, capacity))
            self._metrics.tier_bytes(settings.medium, used, capacity)

    @property
    def cached_bytes(self) -> int:
        """Verified bytes of the worker's share of the current generation."""
        return self._state.cached_bytes

    @property
    def held_bytes(self) -> int:
        """All bytes in the tiers."""
        return self._state.held_bytes

    def usable_bytes(self) -> int:
        """What the tiers take up to their high watermarks."""
        return int(sum(max(0, tier.capacity * tier.high - CHUNK_SIZE) for tier in self._state.tiers))

    def medium(self, tier: int) -> str:
        """The name of a tier's medium."""
        return self._settings[tier].medium

    def tier_statuses(self) -> tuple[TierStatus, ...]:
        """The tiers for the worker's status."""
        with self._lock:
            rooms = [(tier.capacity, tier.used) for tier in self._state.tiers]
        return tuple(
            TierStatus(
                medium=settings.medium,
                capacity_bytes=capacity,
                used_bytes=used,
                problem=tier.problem if isinstance(tier, StorageTier) else tier,
            )
            for settings, tier, (capacity, used) in zip(self._settings, self._tiers, rooms, strict=True)
        )

    def close(self) -> None:
        """Close the catalogues; chunks that are still being written are not kept."""
        self._closed = True
        for tier in self._tiers:
            if isinstance(tier, StorageTier):
                tier.close()
