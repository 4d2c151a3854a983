"""Readers, eviction, moves and a changing ring in seeded interleavings of the real shell and store on real files.

The threads' order is chosen by the seed; they can be interrupted at every file operation, every request to the store
or to a peer, and wherever one waits for another.
"""

import os
import random
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from typing_extensions import override

from forebay.source.base import Arrived
from forebay_protocol.errors import ForebayError, SourceUnavailable, WorkerUnavailable
from forebay_protocol.keys import BLOCK_SIZE, ChunkKey, ObjectVersion, Span
from forebay_protocol.ring import Member, Ring
from forebay_protocol.wire import Flag, ReadRequest
from forebay_worker.arrival import Part
from forebay_worker.membership import Membership
from forebay_worker.metrics import Metrics
from forebay_worker.origin import Origin
from forebay_worker.peers import Peers
from forebay_worker.settings import TierSettings
from forebay_worker.shell import ChunkShell, Judged, Limits, Threading
from forebay_worker.store.checksums import block_sums
from forebay_worker.store.sparse import SparseFiles
from forebay_worker.store.tiered import ChunkStore
from testkit.chunk_store import always_useful, body
from testkit.schedule import Schedule, ScheduledCondition

SCHEDULES = 1000
READERS, READS = 5, 4
OBJECTS = [ObjectVersion("uid", "m", f"{number}", "v", BLOCK_SIZE + 9_000 + number) for number in range(6)]
ROOM = 19 * 4096
"""What each of them takes."""
MEMBERS = [Member(id=name, address="127.0.0.1", data_port=1, control_port=1) for name in ("self", "other")]


class SteppedFiles(SparseFiles):
    """Others may run before and after every operation."""

    step: Callable[[], None] = staticmethod(lambda: None)

    @override
    def write(self, key: ChunkKey, data: memoryview) -> None:
        self.step()
        super().write(key, data)
        self.step()

    @override
    def open(self, object_id: str) -> int:
        self.step()
        return super().open(object_id)

    @override
    def remove(self, key: ChunkKey, length: int, in_use: Callable[[], bool]) -> None:
        self.step()
        super().remove(key, length, in_use)
        self.step()


class Outside:
    """The store and the peers: they take their time, and fail now and then."""

    def __init__(self, schedule: Schedule, rng: random.Random, *, failing: bool) -> None:
        self._schedule = schedule
        self._rng = rng
        self.failing = failing
        self.under_way: Counter[str] = Counter()
        self.fetched: Counter[str] = Counter()

    def _fails(self) -> bool:
        return self.failing and self._rng.random() < 0.1

    def read_into(self, one: ObjectVersion, _offset: int, buffer: memoryview, arrived: Arrived) -> None:
        """A request to the store, which fails before, in the middle of or after the answer."""
        self.under_way[one.key] += 1
        assert self.under_way[one.key] == 1, "two requests for one chunk at the same time"
        try:
            self._bring(one, buffer, arrived, SourceUnavailable("the store fails now and then"))
        finally:
            self.under_way[one.key] -= 1
        self.fetched[one.key] += 1

    def _bring(self, one: ObjectVersion, buffer: memoryview, arrived: Arrived, error: ForebayError) -> None:
        whole = body(one, 0)
        for start, end in ((0, 100), (100, BLOCK_SIZE), (BLOCK_SIZE, one.size)):
            self._schedule.step()
            if self._fails():
                raise error
            buffer[start:end] = whole[start:end]
            arrived(end)

    def usable(self, *_: object) -> bool:
        """Whether a peer is worth asking."""
        return not self._fails()

    def pull(self, _owner: Member, one: ObjectVersion, _number: int, buffer: memoryview, arrived: Arrived) -> None:
        """A chunk from its owner."""
        self._bring(one, buffer, arrived, WorkerUnavailable("peers fail now and then"))

    def ask_former_owners(self, *_: object, **__: object) -> bool:
        """Nobody has it."""
        self._schedule.step()
        return False


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where there is such a place: this is about order, not about disks."""
    shared = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        yield Path(name)


class Round:
    """One interleaving."""

    def __init__(self, seed: int, folder: Path, *, roomy: bool) -> None:
        self.rng = random.Random(seed)
        self.schedule = Schedule(seed)
        self.roomy = roomy
        self.outside = Outside(self.schedule, self.rng, failing=not roomy)
        self.membership = Membership("self", folder / "ring.json")
        self.membership.offer(Ring(epoch=1, members=(MEMBERS[0],)))
        quota = 16 * ROOM if roomy else 4 * ROOM
        tiers = (
            TierSettings(medium="Memory", paths=(folder / "fast",), quota=quota // 4 + ROOM // 4, high=1.0),
            TierSettings(medium="SSD", paths=(folder / "slow",), quota=quota, high=0.9, low=0.6),
        )
        metrics = Metrics()
        self.store = ChunkStore(tiers, "uid", metrics)
        self.store._room_made = cast("threading.Condition", ScheduledCondition(self.store._lock, self.schedule))
        for number, tier in enumerate(tiers):
            files = SteppedFiles(tier.paths[0])
            files.step = self.schedule.step
            self.store._folders[number].files = files
        self.shell = ChunkShell(
            self.membership, cast("Origin", self.outside), cast("Peers", self.outside), metrics,
            Limits(fetchers=4, fill_bytes=1 << 30), Threading(self.schedule.executor, self.schedule.condition),
        )  # fmt: skip
        self.shell.cache = Judged(self.store, always_useful)

    def read(self) -> None:
        """A reader: what it gets is right, or an error that says so."""
        for _ in range(READS):
            one = self.rng.choice(OBJECTS)
            span = self.rng.choice((Span(0, one.size), Span(0, BLOCK_SIZE), Span(BLOCK_SIZE, one.size - BLOCK_SIZE)))
            request = ReadRequest(0, one, *span, self.rng.choice((Flag.NONE, Flag.PEER)))
            given: list[Part] = []
            try:
                got = self.shell.get(request, self.schedule.step, self.rng.choice((None, given.append)))
            except (SourceUnavailable, WorkerUnavailable):
                assert self.outside.failing
                continue
            assert [got, *given].count(None) == len(given) <= 1, "answered once, in one way"
            got = given[0] if got is None else got
            if isinstance(got, Part):
                self.schedule.step()
                assert bytes(got.data) == body(one, 0)[span.offset :][: span.length]
                assert got.sums == block_sums(got.data)
                continue
            self.schedule.step()
            assert os.pread(got.fd, got.length, got.offset) == body(one, 0), "bytes changed under their reader"
            got.release()

    def change_ring(self) -> None:
        """Members come and go."""
        for epoch in range(2, 6):
            self.schedule.step()
            self.membership.offer(Ring(epoch=epoch, members=tuple(self.rng.sample(MEMBERS, self.rng.choice((1, 2))))))
            for key in self.store.present():
                self.store.judge(key, always_useful)

    def move(self) -> None:
        """Between the tiers."""
        for _ in range(6):
            self.schedule.step()
            self.store.move_one()

    def damage(self) -> None:
        """Some chunk turns out to be damaged."""
        for _ in range(0 if self.roomy else 2):
            self.schedule.step()
            lease = self.store.lease(ChunkKey(self.rng.choice(OBJECTS).object_id, 0))
            if lease is not None:
                lease.damaged()
                lease.release()

    def run(self) -> None:
        """All of them; then the accounts must be right."""
        for _ in range(READERS):
            self.schedule.add(self.read)
        for other in (self.change_ring, self.move, self.damage):
            self.schedule.add(other)
        self.schedule.run()
        self.store._state.validate()
        assert len(self.shell._flights) == 0
        present = {key.object_id for key in self.store.present()}
        files = {name for number in range(2) for name in self.store._folders[number].files.object_ids()}
        assert files == present
        if self.roomy:
            assert not self.outside.fetched or max(self.outside.fetched.values()) == 1, "fetched twice"


@pytest.mark.timeout(240)
def test_every_interleaving_keeps_the_promises(folder: Path) -> None:
    """A thousand seeds: right bytes, one request at a time for a chunk, no deadlock, accounts that match the disk."""
    steps = 0
    for seed in range(SCHEDULES):
        place = folder / str(seed)
        place.mkdir()
        one = Round(seed, place, roomy=seed % 3 == 0)
        with closing(one.store):
            try:
                one.run()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            steps += one.schedule.steps
    assert steps > 50 * SCHEDULES
