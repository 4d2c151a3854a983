"""The data protocol's frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_protocol import wire
from forebay_protocol.errors import BY_CODE, ForebayError, InvalidRequest, ObjectChanged, from_code
from forebay_protocol.keys import ObjectVersion

NAMES = st.text(st.characters(codec="utf-8"), max_size=200)


@given(NAMES, NAMES, NAMES, NAMES, st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 2**32 - 1))
def test_a_request_reads_back(
    dataset: str, mount: str, key: str, version: str, size: int, offset: int, length: int
) -> None:
    """Whatever the names, the worker sees what the client meant."""
    one = ObjectVersion(dataset, mount, key, version, size)
    raw = wire.encode_request(wire.ReadRequest(9, one, offset, length, wire.Flag.PEER))
    flags, body_length, request_id, got_size, got_offset, got_length = wire.decode_request_head(
        raw[: wire.REQUEST.size]
    )

    assert (flags, request_id, got_size, got_offset, got_length) == (wire.Flag.PEER, 9, size, offset, length)
    assert len(raw) == wire.REQUEST.size + body_length
    assert wire.decode_object(raw[wire.REQUEST.size :], got_size) == one


@given(st.binary(max_size=64))
def test_a_hostile_body_is_refused_or_parsed(body: bytes) -> None:
    """Random bytes never raise anything but InvalidRequest."""
    try:
        parsed = wire.decode_object(body, 1)
    except InvalidRequest:
        return
    assert wire.encode_request(wire.ReadRequest(1, parsed, 0, 1)).endswith(body)


def test_a_body_ends_where_its_parts_end() -> None:
    """A byte less or more than the four parts have is refused."""
    raw = wire.encode_request(wire.ReadRequest(1, ObjectVersion("uid", "m", "key", "v", 9), 0, 9))
    body = raw[wire.REQUEST.size :]

    for other in (body[:-1], body + b"x"):
        with pytest.raises(InvalidRequest):
            wire.decode_object(other, 9)


def test_foreign_frames_are_refused() -> None:
    """An HTTP client that knocks at the data port gets no further."""
    with pytest.raises(InvalidRequest):
        wire.decode_request_head(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".ljust(wire.REQUEST.size)[: wire.REQUEST.size])
    with pytest.raises(InvalidRequest):
        wire.decode_response(b"\0" * wire.RESPONSE.size)


def test_a_response_head_reads_back() -> None:
    """Status, blocks, epoch and generation survive the trip."""
    head = wire.ResponseHead(status=0, blocks=64, id=3, epoch=2**40, generation=12, length=4 << 20, retry_after=1.5)

    assert wire.decode_response(wire.encode_response(head)) == head


def test_a_repeated_response_differs_in_its_id_and_in_what_is_new() -> None:
    """All else is the first answer's: status, blocks, length and checksums."""
    first = wire.encode_response(wire.ResponseHead(0, 2, 7, 3, 4, 70_000)) + b"checksums"
    request = wire.encode_request(wire.ReadRequest(9, ObjectVersion("d", "m", "k", "v", 70_000), 0, 70_000))

    again = wire.repeat_of_response(first, request, 5, 6)

    assert again == wire.encode_response(wire.ResponseHead(0, 2, 9, 5, 6, 70_000)) + b"checksums"


def test_codes_are_unique_and_read_back() -> None:
    """An error keeps its class over the wire; a code of a later release stays an error."""
    assert len({kind.code for kind in BY_CODE.values()}) == len(BY_CODE)
    assert isinstance(from_code(ObjectChanged.code, "x"), ObjectChanged)
    assert type(from_code(250, "x")) is ForebayError
