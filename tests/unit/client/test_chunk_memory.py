"""Memory of chunks: whoever holds a view of it has it alone."""

import pytest

from forebay import buffers
from forebay_protocol.keys import CHUNK_SIZE


@pytest.mark.parametrize("length", [1000, CHUNK_SIZE // 2 + 1, CHUNK_SIZE])
def test_memory_is_released_with_its_last_view(length: int) -> None:
    """Also when that is a part of it."""
    released: list[int] = []
    view = buffers.make_view(length, lambda: released.append(length))
    assert len(view) == length
    view[-3:] = b"abc"
    part = view[-2:]

    del view

    assert not released
    assert bytes(part) == b"bc"
    del part
    assert released == [length]


def test_memory_that_somebody_sees_is_given_to_nobody_else() -> None:
    """However many chunks come and go meanwhile; and no more than a few are kept."""
    view = buffers.make_view(CHUNK_SIZE)
    view[:3] = b"abc"
    part = view[:3]
    del view

    others = [buffers.make_view(CHUNK_SIZE) for _ in range(3 * buffers.MOST_KEPT)]
    for other in others:
        other[:3] = b"xyz"
    del other, others

    assert bytes(part) == b"abc"
    assert len(buffers._kept) == buffers.MOST_KEPT
