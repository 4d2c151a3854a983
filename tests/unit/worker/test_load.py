"""What a load wants and how far it is."""

from forebay_protocol.control import LoadProgress, LoadState, loaded_files
from forebay_protocol.keys import CHUNK_SIZE, ChunkKey, ObjectVersion
from forebay_worker.core.load import look, make_plan, what_fits

FILES = [ObjectVersion("uid", "m", f"file{number}", "v", size) for number, size in enumerate([2 * CHUNK_SIZE, 0, 10])]


def test_a_worker_plans_its_own_share() -> None:
    """Totals describe the selection; chunks are only those that it owns."""
    plan = make_plan(5, 2, FILES, lambda key: key.number == 1)

    assert (plan.generation, plan.epoch, plan.total_files, plan.total_bytes) == (5, 2, 3, 2 * CHUNK_SIZE + 10)
    assert [(chunk.file, chunk.number) for chunk in plan.own] == [(0, 1)]
    assert plan.own_bytes == CHUNK_SIZE


def test_a_file_is_complete_where_nothing_of_it_is_missing() -> None:
    """Empty files and those without an own chunk are; bits begin with the most significant."""
    plan = make_plan(5, 2, FILES, lambda _: True)
    last = ChunkKey(FILES[2].object_id, 0)

    seen = look(plan, lambda key: key == last)

    assert seen.present_bytes == 10
    assert seen.complete_files == bytes([0b0110_0000])
    assert [chunk.key.number for chunk in seen.missing] == [0, 1]


def test_nine_files_need_two_bytes() -> None:
    """Bits beyond the last file are not set."""
    plan = make_plan(1, 1, FILES * 3, lambda _: True)

    assert look(plan, lambda _: True).complete_files == bytes([0xFF, 0x80])


def test_files_are_loaded_when_they_are_on_all_workers() -> None:
    """The operator's count and the workers' bits fit together."""
    plans = [make_plan(1, 1, FILES, lambda key: key.number == 0), make_plan(1, 1, FILES, lambda key: key.number == 1)]

    def here(key: ChunkKey) -> bool:
        return key.object_id != FILES[0].object_id or key.number == 0

    bits = [look(plan, here).complete_files for plan in plans]
    reports = [LoadProgress(state=LoadState.RUNNING, generation=1, total_files=3, complete_files=one) for one in bits]

    assert loaded_files(tuple(reports)) == 2


def test_only_what_fits_is_fetched() -> None:
    """In index order, up to the room."""
    plan = make_plan(1, 1, FILES, lambda _: True)

    assert len(what_fits(plan.own, 2 * CHUNK_SIZE)) == 2
    assert what_fits(plan.own, 0) == []
