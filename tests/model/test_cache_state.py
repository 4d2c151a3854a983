"""The cache state under random schedules: whatever happens in whatever order, its invariants hold."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay_protocol.keys import ChunkKey
from forebay_worker.core import events as ev
from forebay_worker.core.chunk import Phase, Tier
from forebay_worker.core.duel import Duel
from forebay_worker.core.instructions import Granted, Instruction, Move, ReadThrough, Remove, Unlink, Wait, Write
from forebay_worker.core.state import CacheState

CAPACITIES = (100, 120, 200)
LEVELS = (0, 1, 1)
"""A fast folder and two slower ones of equal speed."""

KEYS = st.builds(ChunkKey, st.sampled_from(["aa", "bb", "cc", "dd"]), st.integers(0, 11))
CHUNKS = 12
LEASES = [f"lease-{number}" for number in range(6)]


class CacheMachine(RuleBasedStateMachine):
    """Plays readers, disks, ring, scrub and leases; knows on its own what must be readable and what must stay."""

    def __init__(self) -> None:
        super().__init__()
        tiers = [Tier(size, 0.9, 0.6, block=3, level=level) for size, level in zip(CAPACITIES, LEVELS, strict=True)]
        self.state = CacheState(tiers)
        self.writing: dict[ChunkKey, int] = {}
        self.removing: list[Remove] = []
        self.unlinking: list[Unlink] = []
        self.moving: Move | None = None
        self.pinned: list[tuple[ChunkKey, int]] = []
        self.readable: dict[ChunkKey, bytes] = {}
        self.leased: dict[str, tuple[int, str]] = {}
        self.unlinked: dict[str, int] = {}

    @initialize(found=st.lists(st.tuples(KEYS, st.integers(5, 20)), max_size=24), keeping=st.booleans())
    def start(self, found: list[tuple[ChunkKey, int]], keeping: bool) -> None:
        """Take over what an earlier run left."""
        self.state = CacheState(self.state.tiers, Duel(keeping=keeping))
        for key, length in found:
            tier = next((number for number, one in enumerate(self.state.tiers) if one.takes(length)), None)
            if key not in self.readable and tier is not None:
                self.state.handle(ev.Found(key, tier, length, b"old"))
                self.readable[key] = b"old"

    def names_held(self) -> set[tuple[int, str]]:
        """The files that somebody holds by lease and that have a name."""
        return {place for lease, place in self.leased.items() if lease not in self.unlinked}

    def obey(self, instructions: list[Instruction]) -> None:
        """Note what is asked for; disks carry it out later, in any order."""
        for instruction in instructions:
            match instruction:
                case Remove(key, tier):
                    assert (key, tier) not in self.pinned, "bytes were taken from under their reader"
                    assert (tier, key.object_id) not in self.names_held(), "a file was punched under its lease"
                    self.removing.append(instruction)
                    if self.state.peek(key) is None:
                        self.readable.pop(key, None)
                case Write(key, tier):
                    assert key not in self.readable
                    assert not self.at_work(key, tier), "written where a removal or another write is under way"
                    self.writing[key] = tier
                case Move(key, source, target):
                    assert self.moving is None
                    assert not self.at_work(key, target)
                    assert source != target
                    self.moving = instruction
                case Unlink(tier, object_id, keys):
                    assert not any((key, tier) in self.pinned for key in keys)
                    assert not any(key.object_id == object_id and to == tier for key, to in self.writing.items())
                    self.unlinking.append(instruction)
                    for key in keys:
                        self.readable.pop(key, None)
                case ReadThrough() | Wait() | Granted():
                    pass

    def at_work(self, key: ChunkKey, tier: int) -> bool:
        """Whether something that was asked for works on the chunk's place in the tier."""
        gone = any(one.key == key and one.tier == tier for one in self.removing)
        unlinked = any(one.object_id == key.object_id and one.tier == tier for one in self.unlinking)
        return gone or unlinked or self.writing.get(key) == tier

    @rule(key=KEYS, length=st.integers(1, 20))
    def want(self, key: ChunkKey, length: int) -> None:
        """Somebody fetched a chunk."""
        answer = self.state.handle(ev.Wanted(key, length))
        assert any(isinstance(one, Write | ReadThrough | Wait) for one in answer)
        self.obey(answer)

    @precondition(lambda self: self.writing)
    @rule(data=st.data(), works=st.booleans())
    def write_ends(self, data: st.DataObject, works: bool) -> None:
        """The disk is done, or refuses."""
        key = data.draw(st.sampled_from(sorted(self.writing)))
        del self.writing[key]
        if works:
            self.readable[key] = b"new"
            self.obey(self.state.handle(ev.Written(key, b"new")))
        else:
            self.obey(self.state.handle(ev.WriteFailed(key)))

    @precondition(lambda self: self.removing)
    @rule(data=st.data())
    def removal_ends(self, data: st.DataObject) -> None:
        """A removal has been carried out."""
        done = self.removing.pop(data.draw(st.integers(0, len(self.removing) - 1)))
        self.obey(self.state.handle(ev.Removed(done.key, done.tier)))

    @precondition(lambda self: self.unlinking)
    @rule()
    def unlink_ends(self) -> None:
        """A file has lost its name; its room stays in use for as long as a lease of it does."""
        done = self.unlinking.pop(0)
        for lease, place in self.leased.items():
            if place == (done.tier, done.object_id) and lease not in self.unlinked:
                self.unlinked[lease] = done.tier
        self.obey(self.state.handle(ev.Unlinked(done.tier, done.object_id)))

    @rule()
    def idle(self) -> None:
        """The disks have time."""
        self.obey(self.state.handle(ev.Idle()))

    @precondition(lambda self: self.moving)
    @rule(works=st.booleans())
    def move_ends(self, works: bool) -> None:
        """The copy is there, or not; whoever reads the old one goes on."""
        assert self.moving is not None
        key, self.moving = self.moving.key, None
        self.obey(self.state.handle(ev.Moved(key) if works else ev.MoveFailed(key)))

    @rule(key=KEYS)
    def read_begins(self, key: ChunkKey) -> None:
        """A reader gets exactly the chunks that were written and neither damaged nor removed."""
        chunk = self.state.pin(key)
        assert (chunk.sums if chunk else None) == self.readable.get(key)
        if chunk is not None:
            self.pinned.append((key, chunk.tier))

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def read_ends(self, data: st.DataObject) -> None:
        """A reader is done."""
        key, tier = self.pinned.pop(data.draw(st.integers(0, len(self.pinned) - 1)))
        self.obey(self.state.handle(ev.Released(key, tier)))

    @precondition(lambda self: self.readable)
    @rule(data=st.data(), gap=st.sampled_from([300, 1000, 3000]))
    def read_often(self, data: st.DataObject, gap: int) -> None:
        """A chunk that may be worth a faster tier; something too large for the cache is read in between."""
        key = data.draw(st.sampled_from(sorted(self.readable)))
        for _ in range(3):
            self.obey(self.state.handle(ev.Wanted(ChunkKey("ee", 0), gap)))
            chunk = self.state.pin(key)
            if chunk is not None:
                self.obey(self.state.handle(ev.Released(key, chunk.tier)))
        self.obey(self.state.handle(ev.Idle()))

    @rule(lease=st.sampled_from(LEASES), object_id=st.sampled_from(["aa", "bb"]), tier=st.integers(0, 2))
    def lease(self, lease: str, object_id: str, tier: int) -> None:
        """Somebody opens a file; it is refused while the file loses chunks."""
        if lease in self.leased:
            return
        going = any((one.tier, one.key.object_id) == (tier, object_id) for one in self.removing)
        answer = self.state.handle(ev.Leased(lease, tier, object_id, CHUNKS))
        if Granted(lease) in answer:
            assert not going
            assert not any((one.tier, one.object_id) == (tier, object_id) for one in self.unlinking)
            self.leased[lease] = (tier, object_id)
        self.obey(answer)

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def lease_ends(self, data: st.DataObject) -> None:
        """It is given back."""
        lease = data.draw(st.sampled_from(sorted(self.leased)))
        del self.leased[lease]
        self.unlinked.pop(lease, None)
        self.obey(self.state.handle(ev.LeaseEnded(lease)))

    @rule(key=KEYS)
    def damage(self, key: ChunkKey) -> None:
        """A chunk turns out to be damaged: nobody gets it any more."""
        self.readable.pop(key, None)
        self.obey(self.state.handle(ev.Damaged(key)))

    @rule(key=KEYS)
    def verify(self, key: ChunkKey) -> None:
        """The scrub found a chunk to be right."""
        self.obey(self.state.handle(ev.Verified(key)))

    @rule(key=KEYS, current=st.booleans(), owned=st.booleans())
    def judge(self, key: ChunkKey, current: bool, owned: bool) -> None:
        """Ring or index changed."""
        self.obey(self.state.handle(ev.Judged(key, current, owned, spare=not (current and owned))))

    @rule(tier=st.integers(0, 2), share=st.sampled_from([0.0, 0.5, 1.0]))
    def resize(self, tier: int, share: float) -> None:
        """A disk shrinks, rests, or recovers."""
        self.obey(self.state.handle(ev.Resized(tier, int(CAPACITIES[tier] * share))))

    @rule(tier=st.integers(0, 2))
    def lose(self, tier: int) -> None:
        """A disk is gone."""
        self.readable = {
            key: sums for key, sums in self.readable.items() if (chunk := self.state.peek(key)) and chunk.tier != tier
        }
        self.obey(self.state.handle(ev.Lost(tier)))

    @invariant()
    def accounts_are_right(self) -> None:
        """The state's own invariants."""
        self.state.validate()

    @invariant()
    def no_tier_holds_more_than_its_quota(self) -> None:
        """Room counts until it is really free."""
        for tier, capacity in zip(self.state.tiers, CAPACITIES, strict=True):
            assert tier.used <= capacity

    @invariant()
    def readable_is_what_the_readers_think(self) -> None:
        """Nothing partial, damaged or removed is shown."""
        assert set(self.state.present()) == set(self.readable)


TestCacheState = pytest.mark.timeout(120)(CacheMachine.TestCase)
TestCacheState.settings = settings(max_examples=150, stateful_step_count=80, deadline=None)


def _filled(count: int, length: int = 10, *, keeping: bool = False) -> CacheState:
    state = CacheState([Tier(100, 0.95, 0.5)], Duel(keeping=keeping))
    for number in range(count):
        assert state.handle(ev.Wanted(ChunkKey("aa", number), length)) == [Write(ChunkKey("aa", number), 0)]
        state.handle(ev.Written(ChunkKey("aa", number), b""))
    return state


def test_the_least_recently_used_go_first_and_down_to_the_low_watermark() -> None:
    """Nine of ten, one of them just read: the next one drives out the oldest four others."""
    state = _filled(9)
    state.pin(ChunkKey("aa", 0))
    state.handle(ev.Released(ChunkKey("aa", 0), 0))

    instructions = state.handle(ev.Wanted(ChunkKey("bb", 0), 10))

    assert instructions == [
        *(Remove(ChunkKey("aa", number), 0, 10) for number in (1, 2, 3, 4)),
        Wait(ChunkKey("bb", 0)),
    ]


def test_while_keeping_only_as_much_goes_as_the_new_chunk_needs() -> None:
    """And the chunk that came so goes before those that were there."""
    state = _filled(9, keeping=True)

    assert state.handle(ev.Wanted(ChunkKey("bb", 0), 10)) == [
        Remove(ChunkKey("aa", 0), 0, 10),
        Wait(ChunkKey("bb", 0)),
    ]


@pytest.mark.parametrize("keeping", [False, True])
def test_what_a_reader_holds_is_never_driven_out(keeping: bool) -> None:
    """Whatever else has to go; once the last reader is done it is like the others."""
    state = _filled(9, keeping=keeping)
    held = ChunkKey("aa", 0)
    for _ in range(2):
        state.pin(held, touch=False)
    state.handle(ev.Released(held, 0))

    def drive_out(first: int) -> set[ChunkKey]:
        gone: set[ChunkKey] = set()
        for number in range(first, first + 30):
            key = ChunkKey("bb", number)
            for instruction in state.handle(ev.Wanted(key, 10)):
                if isinstance(instruction, Remove):
                    gone.add(instruction.key)
                    state.handle(ev.Removed(instruction.key, instruction.tier))
                elif isinstance(instruction, Write):
                    state.handle(ev.Written(key, b""))
        return gone

    assert drive_out(0)
    assert state.peek(held) is not None
    state.handle(ev.Released(held, 0))
    state.handle(ev.Judged(held, current=False, owned=True, spare=True))

    assert held in drive_out(100)


def test_what_the_generation_does_not_show_goes_before_everything_else() -> None:
    """A superseded chunk that was just read goes before older useful ones."""
    state = _filled(9)
    state.handle(ev.Judged(ChunkKey("aa", 8), current=False, owned=True, spare=True))

    first = state.handle(ev.Wanted(ChunkKey("bb", 0), 10))[0]

    assert first == Remove(ChunkKey("aa", 8), 0, 10)


def test_a_chunk_that_can_never_fit_is_read_through() -> None:
    """Larger than the tier below its high watermark: nothing is driven out for it once the tier is empty."""
    state = _filled(0)

    assert state.handle(ev.Wanted(ChunkKey("bb", 0), 96)) == [ReadThrough(ChunkKey("bb", 0))]


def test_unverified_chunks_of_an_earlier_run_do_not_count() -> None:
    """They count from the moment in which they are verified."""
    state = _filled(0)
    state.handle(ev.Found(ChunkKey("aa", 0), 0, 10, b""))
    assert state.cached_bytes == 0

    state.handle(ev.Verified(ChunkKey("aa", 0)))

    assert state.cached_bytes == 10
    chunk = state.peek(ChunkKey("aa", 0))
    assert chunk is not None
    assert chunk.phase is Phase.PRESENT


def test_what_is_read_often_moves_up_and_what_is_not_makes_room() -> None:
    """The fast tier is full: its coldest chunk is copied down first, and readers of the old copy finish."""
    state = CacheState([Tier(20, 1.0, 0.5), Tier(100, 0.9, 0.5, level=1)], Duel(keeping=False))
    cold, other, hot = (ChunkKey("aa", number) for number in range(3))
    for key in (cold, other, hot):
        state.handle(ev.Wanted(key, 10))
        state.handle(ev.Written(key, b""))
    for _ in range(3):
        state.handle(ev.Wanted(ChunkKey("ee", 0), 500))
        for key in (other, hot):
            state.pin(key)
            state.handle(ev.Released(key, 0 if key == other else 1))
    reader = state.pin(cold, touch=False)
    assert reader is not None

    assert state.handle(ev.Idle()) == [Move(cold, 0, 1, 10)]
    assert state.handle(ev.Moved(cold)) == []
    assert state.handle(ev.Idle()) == [], "the reader's copy still takes the room"
    assert state.handle(ev.Released(cold, 0)) == [Remove(cold, 0, 10)]
    state.handle(ev.Removed(cold, 0))
    for key in (other, hot):
        state.handle(ev.Wanted(ChunkKey("ee", 0), 500))
        state.pin(key)
        state.handle(ev.Released(key, 0 if key == other else 1))

    assert state.handle(ev.Idle()) == [Move(hot, 1, 0, 10)]
    state.validate()


def test_what_everybody_reads_equally_often_stays_where_it_is() -> None:
    """Epochs in a new order over two tiers: no chunk is worth moving, whatever its order was by chance."""
    state = CacheState([Tier(200, 1.0, 0.5), Tier(200, 1.0, 0.5, level=1)])
    keys = [ChunkKey("aa", number) for number in range(40)]
    rng, moves = random.Random(3), 0
    for _ in range(20):
        for key in rng.sample(keys, len(keys)):
            chunk = state.pin(key)
            if chunk is None:
                state.handle(ev.Wanted(key, 10))
                state.handle(ev.Written(key, b""))
            else:
                state.handle(ev.Released(key, chunk.tier))
            for one in state.handle(ev.Idle()):
                assert isinstance(one, Move)
                moves += 1
                for removal in state.handle(ev.Moved(one.key)):
                    assert isinstance(removal, Remove)
                    state.handle(ev.Removed(removal.key, removal.tier))

    assert moves < 40


def test_a_leased_file_is_unlinked_rather_than_punched() -> None:
    """Its chunks are gone for new readers; its room comes back with the end of the last lease."""
    state = _filled(9)
    for lease in ("one", "two"):
        assert state.handle(ev.Leased(lease, 0, "aa", 9)) == [Granted(lease)]

    instructions = state.handle(ev.Wanted(ChunkKey("bb", 0), 10))

    keys = tuple(ChunkKey("aa", number) for number in range(9))
    assert instructions == [ReadThrough(ChunkKey("bb", 0)), Unlink(0, "aa", keys, 90)]
    state.handle(ev.Unlinked(0, "aa"))
    assert (state.present(), state.tiers[0].used) == ([], 90)
    state.handle(ev.LeaseEnded("one"))
    assert state.tiers[0].used == 90
    state.handle(ev.LeaseEnded("two"))
    assert state.tiers[0].used == 0
    state.validate()


def test_files_without_a_lease_go_first() -> None:
    """A leased file frees nothing before its lease ends."""
    state = _filled(5)
    for number in range(4):
        state.handle(ev.Wanted(ChunkKey("bb", number), 10))
        state.handle(ev.Written(ChunkKey("bb", number), b""))
    state.handle(ev.Leased("one", 0, "aa", 9))

    removed = state.handle(ev.Wanted(ChunkKey("cc", 0), 10))

    assert removed[:-1] == [Remove(ChunkKey("bb", number), 0, 10) for number in range(4)]


def test_folders_of_one_level_share_by_capacity_and_keep_objects_together() -> None:
    """A folder three times as large gets about three times as many objects; no object is split."""
    state = CacheState([Tier(10_000, 0.9, 0.6), Tier(30_000, 0.9, 0.6)])
    tiers: dict[str, set[int]] = {}
    for number in range(1000):
        object_id = f"{random.Random(number).getrandbits(256):064x}"
        for chunk in range(2):
            for one in state.handle(ev.Wanted(ChunkKey(object_id, chunk), 10)):
                assert isinstance(one, Write)
                tiers.setdefault(object_id, set()).add(one.tier)

    assert all(len(places) == 1 for places in tiers.values())
    assert 680 <= sum(1 in places for places in tiers.values()) <= 820


def test_a_chunk_comes_not_back_to_where_its_old_copy_is_still_being_removed() -> None:
    """The removal would take the new bytes: they go into another tier."""
    state = CacheState([Tier(60, 1.0, 0.5), Tier(100, 0.9, 0.5, level=1)], Duel(keeping=False))
    state.handle(ev.Resized(0, 0))
    key = ChunkKey("aa", 0)
    state.handle(ev.Wanted(key, 10))
    state.handle(ev.Written(key, b""))
    state.handle(ev.Resized(0, 60))
    for _ in range(2):
        state.handle(ev.Wanted(ChunkKey("ee", 0), 500))
        state.pin(key)
        state.handle(ev.Released(key, 1))
    assert state.handle(ev.Idle()) == [Move(key, 1, 0, 10)]
    state.handle(ev.Resized(0, 0))
    assert state.handle(ev.Moved(key)) == [Remove(key, 1, 10)]
    assert state.handle(ev.Damaged(key)) == [Remove(key, 0, 10)]
    state.handle(ev.Removed(key, 0))

    assert Write(key, 1) not in state.handle(ev.Wanted(key, 10))

    state.handle(ev.Removed(key, 1))
    assert state.handle(ev.Wanted(key, 10)) == [Write(key, 1)]
