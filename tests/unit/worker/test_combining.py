"""Checksums of pieces make the checksum of the whole."""

import google_crc32c
from hypothesis import given
from hypothesis import strategies as st

from forebay_worker.store.combining import combine


@given(st.lists(st.binary(max_size=200)))
def test_pieces_make_the_whole(pieces: list[bytes]) -> None:
    """However the bytes are cut, empty pieces included."""
    sums = [(google_crc32c.value(piece), len(piece)) for piece in pieces]

    assert combine(sums) == google_crc32c.value(b"".join(pieces))
