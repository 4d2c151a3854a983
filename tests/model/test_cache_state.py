"""The cache state under random schedules: whatever happens in whatever order, its invariants hold."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay_protocol.keys import ChunkKey
from forebay_worker.core import events as ev
from forebay_worker.core.chunk import Phase, Tier
from forebay_worker.core.duel import Duel
from forebay_worker.core.instructions import Instruction, ReadThrough, Remove, Wait, Write
from forebay_worker.core.state import CacheState

CAPACITIES = (100, 200)
KEYS = st.builds(ChunkKey, st.sampled_from(["aa", "bb", "cc", "dd"]), st.integers(0, 11))


class CacheMachine(RuleBasedStateMachine):
    """Plays readers, disks, ring and scrub; knows on its own what must be readable."""

    def __init__(self) -> None:
        super().__init__()
        self.state = CacheState([Tier(capacity, 0.9, 0.6, block=3) for capacity in CAPACITIES])
        self.writing: dict[ChunkKey, int] = {}
        self.removing: list[Remove] = []
        self.pinned: list[ChunkKey] = []
        self.readable: dict[ChunkKey, bytes] = {}

    @initialize(found=st.lists(st.tuples(KEYS, st.integers(1, 20)), max_size=12), keeping=st.booleans())
    def start(self, found: list[tuple[ChunkKey, int]], keeping: bool) -> None:
        """Take over what an earlier run left."""
        self.state = CacheState(self.state.tiers, Duel(keeping=keeping))
        for key, length in found:
            if key not in self.readable:
                self.state.handle(ev.Found(key, 0 if self.state.tiers[0].has_room(length) else 1, length, b"old"))
                self.readable[key] = b"old"

    def obey(self, instructions: list[Instruction]) -> None:
        """Note what is asked for; removals are carried out later, in any order."""
        for instruction in instructions:
            match instruction:
                case Remove(key):
                    assert key not in self.pinned, "a chunk was taken from under its reader"
                    self.readable.pop(key, None)
                    self.removing.append(instruction)
                case Write(key, tier):
                    assert key not in self.readable
                    self.writing[key] = tier
                case ReadThrough() | Wait():
                    pass

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
            self.obey(self.state.handle(ev.Written(key, b"new")))
            self.readable[key] = b"new"
        else:
            self.obey(self.state.handle(ev.WriteFailed(key)))

    @precondition(lambda self: self.removing)
    @rule(data=st.data())
    def removal_ends(self, data: st.DataObject) -> None:
        """A removal has been carried out."""
        number = data.draw(st.integers(0, len(self.removing) - 1))
        self.obey(self.state.handle(ev.Removed(self.removing.pop(number).key)))

    @rule(key=KEYS)
    def read_begins(self, key: ChunkKey) -> None:
        """A reader gets exactly the chunks that were written and neither damaged nor removed."""
        chunk = self.state.pin(key)
        assert (chunk.sums if chunk else None) == self.readable.get(key)
        if chunk is not None:
            self.pinned.append(key)

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def read_ends(self, data: st.DataObject) -> None:
        """A reader is done."""
        number = data.draw(st.integers(0, len(self.pinned) - 1))
        key = self.pinned.pop(number)
        self.obey(self.state.handle(ev.Released(key)))

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

    @rule(tier=st.integers(0, 1), share=st.sampled_from([0.0, 0.5, 1.0]))
    def resize(self, tier: int, share: float) -> None:
        """A disk shrinks, rests, or recovers."""
        self.obey(self.state.handle(ev.Resized(tier, int(CAPACITIES[tier] * share))))

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
    state.handle(ev.Released(ChunkKey("aa", 0)))

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
    state.handle(ev.Released(held))

    def drive_out(first: int) -> set[ChunkKey]:
        gone: set[ChunkKey] = set()
        for number in range(first, first + 30):
            key = ChunkKey("bb", number)
            for instruction in state.handle(ev.Wanted(key, 10)):
                if isinstance(instruction, Remove):
                    gone.add(instruction.key)
                    state.handle(ev.Removed(instruction.key))
                elif isinstance(instruction, Write):
                    state.handle(ev.Written(key, b""))
        return gone

    assert drive_out(0)
    assert state.peek(held) is not None
    state.handle(ev.Released(held))
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
