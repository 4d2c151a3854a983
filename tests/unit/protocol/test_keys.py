"""Objects, chunks and blocks."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_protocol.keys import BLOCK_SIZE, CHUNK_SIZE, ObjectVersion, Span, block_aligned, block_count, chunk_pieces


def _object(size: int = 1, key: str = "k", version: str = "v") -> ObjectVersion:
    return ObjectVersion("uid", "data", key, version, size)


def test_every_field_is_part_of_the_identity() -> None:
    """Neither another version nor another split of the same text is the same object."""
    ids = {
        ObjectVersion("u", "m", "k", "v", 1).object_id,
        ObjectVersion("u2", "m", "k", "v", 1).object_id,
        ObjectVersion("u", "mk", "", "v", 1).object_id,
        ObjectVersion("u", "m", "k", "v2", 1).object_id,
        ObjectVersion("u", "m", "k", "v", 2).object_id,
    }

    assert len(ids) == 5


def test_an_empty_object_has_no_chunks() -> None:
    """Nothing to fetch, nothing to cache."""
    assert list(_object(0).chunks()) == []


@given(st.integers(1, 5 * CHUNK_SIZE))
def test_chunks_tile_the_object(size: int) -> None:
    """The chunks follow each other without gap or overlap and end with the object."""
    one = _object(size)
    spans = [one.chunk_span(number) for number in one.chunks()]

    assert spans[0].offset == 0
    assert all(left.end == right.offset for left, right in itertools.pairwise(spans))
    assert spans[-1].end == size


def test_there_is_no_chunk_past_the_end() -> None:
    """Asking for one is a programming error, said loudly."""
    with pytest.raises(IndexError):
        _object(CHUNK_SIZE).chunk_span(1)


@given(st.integers(0, 3 * CHUNK_SIZE), st.integers(1, 2 * CHUNK_SIZE))
def test_pieces_cover_a_range_and_stay_within_chunks(offset: int, length: int) -> None:
    """A range is cut at chunk borders and nowhere else."""
    pieces = list(chunk_pieces(offset, length))

    assert sum(span.length for _, span in pieces) == length
    assert pieces[0][1].offset == offset
    assert all(span.offset // CHUNK_SIZE == number == (span.end - 1) // CHUNK_SIZE for number, span in pieces)


@given(st.integers(1, 10 * BLOCK_SIZE).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1))))
def test_block_alignment_contains_the_range(case: tuple[int, int]) -> None:
    """The aligned span starts at a block's start, ends at a block's end or the object's, and holds the range."""
    size, offset = case
    length = size - offset
    span = block_aligned(offset, length, size)

    assert span.offset % BLOCK_SIZE == 0
    assert span.offset <= offset
    assert span.end == size


def test_block_count_rounds_up() -> None:
    """A short last block is a block."""
    assert [block_count(n) for n in (0, 1, BLOCK_SIZE, BLOCK_SIZE + 1)] == [0, 1, 1, 2]
    assert block_aligned(70_000, 10, 1_000_000) == Span(BLOCK_SIZE, BLOCK_SIZE)
