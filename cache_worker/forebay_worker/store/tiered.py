"""The chunk store over all tiers: carries out what the pure state decides, under one lock.

The lock is held for decisions only, never during input or output. A lease pins its chunk until it is released.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import structlog

from forebay_protocol.control import TierStatus
from forebay_protocol.keys import CHUNK_SIZE, ChunkKey, ObjectVersion
from forebay_worker.core import events as ev
from forebay_worker.core.chunk import Chunk
from forebay_worker.core.instructions import Instruction, Move, Remove, Unlink, Wait, Write
from forebay_worker.core.state import CacheState
from forebay_worker.metrics import Metrics
from forebay_worker.settings import TierSettings
from forebay_worker.store.checksums import block_sums
from forebay_worker.store.folders import Folders
from forebay_worker.store.holders import Holders
from forebay_worker.store.places import OpenFile, Place, Places
from forebay_worker.store.sealing import Sealing
from forebay_worker.store.tier import StorageTier

_ROOM_PATIENCE = 5.0
"""Seconds to wait for others who are making room before a chunk is read through."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a chunk is worth now.

    ``current``: the newest generation shows it; ``owned`` by this worker; ``misplaced``: only others should have it.
    """

    current: bool
    owned: bool
    misplaced: bool = False


Judge = Callable[[ObjectVersion, int], Judgement]


class Lease:
    """A chunk that may be read until ``release``; if it is plain, from ``fd`` at ``offset``. Not for two threads."""

    __slots__ = ("_chunk", "_file", "_store", "fd", "key", "length", "offset", "start", "sums", "tier")

    def __init__(self, store: "ChunkStore", chunk: Chunk, tier: int, file: OpenFile, start: bytes) -> None:
        """Takes over the pin. The chunk may move to another tier meanwhile.

        ``start`` is what is needed to decrypt the chunk, empty where it is plain.
        """
        self._store = store
        self.start = start
        self._chunk = chunk
        self._file: OpenFile | None = file
        self.key = chunk.key
        self.fd = file.fd
        self.tier = tier
        self.offset = chunk.key.number * CHUNK_SIZE
        self.length = chunk.length
        self.sums = chunk.sums

    @property
    def plain(self) -> bool:
        """Whether the bytes behind ``fd`` are the chunk's own; else only ``read`` gives them."""
        return not self.start

    def read(self, within: int, length: int) -> bytes:
        """Bytes of the chunk, decrypted; fewer when they are not there (any more). ``within`` is a block's start."""
        return self._store.read(self, within, length)

    def release(self) -> None:
        """Let the file and the chunk go."""
        self._file = None
        self._store.release(self._chunk, self.tier)

    def place(self) -> Place | None:
        """Where the chunk is, to be read there again after this lease; None where it is not plain."""
        assert self._file is not None
        return self._store.remember(Place(self._chunk, self.tier, self._file)) if self.plain else None

    def damaged(self) -> None:
        """Say that the bytes are not what they should be."""
        self._store.damaged(self._chunk, self.tier)


class ChunkStore:
    """Chunks of one dataset. Thread-safe."""

    def __init__(
        self, tiers: tuple[TierSettings, ...], dataset: str, metrics: Metrics, sealing: Sealing | None = None
    ) -> None:
        """Open all tiers and take over what survived there; it is verified when it is first used.

        A folder that cannot be opened is left out, says so in its status, and is tried again with every ``measure``.
        ``sealing`` encrypts the tiers that are to be encrypted; without it those are left out.
        """
        self.sealing = sealing
        self._metrics = metrics
        self._folders = Folders(tiers, dataset, metrics, sealing)
        self._state = CacheState(self._folders.tiers())
        self._lock = threading.Lock()
        self._measuring = threading.Lock()
        self._room_made = threading.Condition(self._lock)
        self._objects: dict[str, ObjectVersion] = {}
        self._places = Places()
        self.holders = Holders(self._folders, self.apply)
        self.dataset = dataset
        self.corrupt_chunks = 0
        self._closed = False
        self.measure()

    def _take_over(self, number: int, tier: StorageTier) -> None:
        """The chunks and leases that survived in a folder that was just opened."""
        for one, index, length, sums in tier.recover():
            key = ChunkKey(one.object_id, index)
            with self._lock:
                self._objects[one.object_id] = one
                elsewhere = self._state.peek(key) is not None
                self._state.handle(ev.Found(key, number, length, sums))
            if elsewhere:
                # Fetched again while this folder was away, or copied from one tier to another in the last moment.
                tier.remove(key, length, partial(self._in_use, number, one.object_id))
        self.holders.take_over(number, tier)

    def lease(self, key: ChunkKey, *, verify: bool = True, touch: bool = True) -> Lease | None:
        """The chunk, verified since the start and pinned; None when it is not here, or not verified and not to be."""
        lease, verified = self._pin(key, touch=touch)
        if lease is None or verified or (verify and self._verify(lease)):
            return lease
        lease.release()
        return None

    def awaited(self, key: ChunkKey, reader: str) -> None:
        """A reader waits for a chunk that is being fetched."""
        with self._lock:
            self._state.awaited(key, reader)

    def _pin(self, key: ChunkKey, *, touch: bool) -> tuple[Lease | None, bool]:
        """The chunk pinned, and whether it is verified."""
        with self._lock:
            chunk = self._state.pin(key, touch=touch)
            if chunk is None:
                return None, False
            verified, tier = chunk.verified, chunk.tier
        fd, start = self._open(tier, key)
        if fd is None or start is None:
            self.damaged(chunk, tier)
            self.apply(ev.Released(key, tier))
            return None, False
        return Lease(self, chunk, tier, OpenFile(fd), start), verified

    def release(self, chunk: Chunk, tier: int) -> None:
        """A lease of a chunk ends."""
        with self._lock:
            instructions = self._state.unpin(chunk, tier)
        self._carry_out(instructions)

    def remember(self, place: Place) -> Place:
        """Keep a place, whose chunk is pinned, until the chunk leaves it."""
        with self._lock:
            return self._places.add(place)

    def lease_again(self, place: Place) -> Lease | None:
        """The chunk at its place, pinned; None when it is not there any more. That it is read is told by ``touch``."""
        with self._lock:
            file = place.file
            if file is None or not place.holds:
                return None
            place.chunk.pins += 1
        return Lease(self, place.chunk, place.tier, file, b"")

    def touch(self, places: Iterable[Place]) -> None:
        """Readers have read there, once each."""
        with self._lock:
            for place in places:
                if place.holds:
                    self._state.touch(place.chunk)

    def _open(self, tier: int, key: ChunkKey) -> tuple[int | None, bytes | None]:
        """The file of a chunk, and what is needed to decrypt it; neither unless both are there."""
        try:
            storage = self._folders[tier]
            start = storage.start(key)
            return (None, None) if start is None else (storage.files.open(key.object_id), start)
        except OSError:
            return None, None

    def _verify(self, lease: Lease) -> bool:
        data = self.read(lease, 0, lease.length)
        if len(data) == lease.length and block_sums(memoryview(data)) == lease.sums:
            self.apply(ev.Verified(lease.key))
            return True
        lease.damaged()
        return False

    def read(self, lease: Lease, within: int, length: int) -> bytes:
        """The chunk's bytes; none when its disk fails, and if it did so often the whole folder is given up."""
        try:
            storage = self._folders[lease.tier]
        except OSError:
            return b""
        data = storage.read(lease.fd, lease.key, lease.start, within, length)
        if storage.broken:
            self._lose(lease.tier, OSError("reads fail again and again"))
        return data

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
            tier = -1 if chunk is None else chunk.tier
        try:
            missing = chunk is not None and not self._folders[tier].is_there(key, chunk.length)
        except OSError:
            return
        if missing and chunk is not None:
            self.damaged(chunk, tier)

    def damaged(self, chunk: Chunk, tier: int) -> None:
        """Never serve this chunk again; it is removed when its last reader is done.

        The verdict is about this very copy: by now another one may be in its place.
        """
        with self._lock:
            if self._state.peek(chunk.key) is not chunk or chunk.tier != tier:
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
        if not self._write(tier, one, number, data, sums):
            self.apply(ev.WriteFailed(key))
            self.measure()
            return False
        self.apply(ev.Written(key, sums))
        self.judge(key, judge, arriving=True)
        return True

    def _write(self, tier: int, one: ObjectVersion, number: int, data: memoryview, sums: bytes) -> bool:
        try:
            written = self._folders[tier].write(one, number, data, sums)
        except OSError:
            written = False
        if not written:
            self._metrics.tier_write_failures.labels(self.medium(tier)).inc()
        return written

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
            evicted = self._state.evictions - before
        if evicted:
            self._metrics.evictions.inc(evicted)
        self._carry_out(instructions)
        return instructions

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Remove():
                    self._remove(instruction)
                case Unlink():
                    with self._lock:
                        for key in instruction.keys:
                            self._places.forget(key, instruction.tier)
                    self.holders.unlink(instruction)
                    self._objects_may_go(instruction.object_id, ev.Unlinked(instruction.tier, instruction.object_id))
                case _:
                    # An answer to whoever asked.
                    pass

    def _remove(self, instruction: Remove) -> None:
        key, tier = instruction.key, instruction.tier
        with self._lock:
            self._places.forget(key, tier)
        with contextlib.suppress(OSError):
            self._folders[tier].remove(key, instruction.length, lambda: self._in_use(tier, key.object_id))
        self._objects_may_go(key.object_id, ev.Removed(key, tier))

    def _objects_may_go(self, object_id: str, done: ev.Removed | ev.Unlinked) -> None:
        with self._room_made:
            more = self._state.handle(done)
            if not any(self._state.in_use(number, object_id) for number in range(len(self._folders))):
                self._objects.pop(object_id, None)
            self._room_made.notify_all()
        self._carry_out(more)

    def move_one(self) -> int:
        """Move one chunk between tiers if that pays; the bytes moved."""
        for instruction in self.apply(ev.Idle()):
            if isinstance(instruction, Move):
                moved = self._move(instruction)
                self.apply(ev.Moved(instruction.key) if moved else ev.MoveFailed(instruction.key))
                if moved:
                    self._metrics.moved_bytes.labels(self.medium(instruction.target)).inc(instruction.length)
                return instruction.length
        return 0

    def _move(self, move: Move) -> bool:
        """Copy a chunk; only bytes that match their checksums arrive."""
        lease, _ = self._pin(move.key, touch=False)
        if lease is None:
            return False
        try:
            with self._lock:
                one = self._objects.get(move.key.object_id)
            data = memoryview(self.read(lease, 0, lease.length))
            if one is None or lease.tier != move.source or len(data) != lease.length:
                return False
            if block_sums(data) != lease.sums:
                lease.damaged()
                return False
            return self._write(move.target, one, move.key.number, data, lease.sums)
        finally:
            lease.release()

    def _in_use(self, tier: int, object_id: str) -> bool:
        with self._lock:
            return self._state.in_use(tier, object_id)

    def judge(self, key: ChunkKey, judge: Judge, *, arriving: bool = False) -> None:
        """Decide anew what one chunk is worth.

        One that arrives has a reader, who may know a newer generation than we do: only the next one can make it spare.
        """
        with self._lock:
            one = self._objects.get(key.object_id)
        if one is not None:
            found = judge(one, key.number)
            spare = found.misplaced or not (found.current or arriving)
            self.apply(ev.Judged(key, found.current, found.owned, spare))

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
        """Look at the tiers' file systems, set the capacities in force, and let chunks go that are beyond them."""
        with self._measuring:
            if self._closed:
                # Somebody still fills: a folder must not be opened once more for that.
                return
            for number in range(len(self._folders)):
                opened = self._folders.open(number)
                if opened is not None:
                    try:
                        self._take_over(number, opened)
                    except (OSError, sqlite3.Error) as error:
                        self._lose(number, error)
            with self._lock:
                used = [tier.used for tier in self._state.tiers]
            for number, capacity in enumerate(self._folders.capacities(used)):
                if isinstance(capacity, OSError):
                    self._lose(number, capacity)
                    continue
                while any(isinstance(one, Remove) for one in self.apply(ev.Resized(number, capacity))):
                    pass
            self.holders.end_expired()
            self.tier_statuses()

    def _lose(self, number: int, error: Exception) -> None:
        """A folder failed: forget what is in it; it is opened anew when it works again."""
        self._folders.lose(number, error)
        self.apply(ev.Resized(number, 0))
        self.apply(ev.Lost(number))

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
        return self._folders.medium(tier)

    def tier_statuses(self) -> tuple[TierStatus, ...]:
        """The tiers for the worker's status."""
        with self._lock:
            rooms = [(tier.capacity, tier.used) for tier in self._state.tiers]
        return self._folders.statuses(rooms)

    def close(self) -> None:
        """Close the catalogues; chunks that are still being written are not kept."""
        self._closed = True
        with self._lock:
            self._places.clear()
        self._folders.close()
