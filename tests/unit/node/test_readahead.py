"""Sequential, random and in-between readers."""

from forebay_node.fuse.readahead import Plan, Readahead
from forebay_protocol.keys import CHUNK_SIZE

MIB = 1024 * 1024
LARGE = 100 * CHUNK_SIZE


def read_all(readahead: Readahead, step: int, stop: int) -> list[Plan]:
    """Plans of a reader that goes from the start to ``stop``."""
    return [readahead.plan(offset, step, 4) for offset in range(0, stop, step)]


def test_a_sequential_reader_gets_every_chunk_once_and_ahead() -> None:
    """Each chunk is planned exactly once, before it is needed, and never more than the window ahead."""
    planned: list[int] = []
    readahead = Readahead(LARGE)
    for offset in range(0, 40 * CHUNK_SIZE, MIB):
        plan = readahead.plan(offset, MIB, 4)
        assert plan.whole
        planned.extend(plan.ahead)
        assert not planned or planned[-1] <= offset // CHUNK_SIZE + 4

    assert planned == list(range(planned[0], planned[-1] + 1))
    assert planned[0] <= 2
    assert planned[-1] >= 41


def test_the_window_grows() -> None:
    """One chunk at first, then twice as many for each chunk read."""
    readahead = Readahead(LARGE)
    read_all(readahead, MIB, CHUNK_SIZE)
    first = readahead.window
    for offset in range(CHUNK_SIZE, 3 * CHUNK_SIZE, MIB):
        readahead.plan(offset, MIB, 4)

    assert first == 1
    assert readahead.window == 4


def test_nothing_is_planned_past_the_end() -> None:
    """The last chunk is the last one planned."""
    readahead = Readahead(3 * CHUNK_SIZE + 5)
    planned = [number for plan in read_all(readahead, MIB, 3 * CHUNK_SIZE + 5) for number in plan.ahead]

    assert max(planned) == 3


def test_random_reads_fetch_only_their_blocks() -> None:
    """Far jumps plan no whole chunk and nothing ahead."""
    readahead = Readahead(LARGE)

    for number in (50, 10, 90, 30, 70):
        assert readahead.plan(number * CHUNK_SIZE, 4096, 4) == Plan(whole=False)


def test_a_peek_at_the_start_is_no_sequential_read() -> None:
    """Reading a header does not fetch a chunk of a large file; a small file is fetched whole at once."""
    assert not Readahead(LARGE).plan(0, 4096, 4).whole
    assert Readahead(1000).plan(0, 1000, 4).whole
    assert Readahead(LARGE).plan(0, 128 * 1024, 4).whole


def test_requests_out_of_order_still_count_as_sequential() -> None:
    """The kernel's own readahead arrives over several threads."""
    readahead = Readahead(LARGE)
    plans = [readahead.plan(number * MIB, MIB, 4) for number in (0, 2, 1, 3, 5, 4, 7, 6, 8)]

    assert all(plan.whole for plan in plans)


def test_a_random_reader_turns_sequential() -> None:
    """After a jump, three reads in a row are enough."""
    readahead = Readahead(LARGE)
    readahead.plan(70 * CHUNK_SIZE, 4096, 4)
    readahead.plan(20 * CHUNK_SIZE, MIB, 4)
    plans = [readahead.plan(20 * CHUNK_SIZE + number * MIB, MIB, 4) for number in range(1, 9)]

    assert plans[-1].whole
    assert 22 in [number for plan in plans for number in plan.ahead]
