"""Whatever arrives, the protocol's parsers answer with a value or with the error that they declare."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_protocol import auth, wire
from forebay_protocol.control import LoadProgress, LoadRequest, LoadState, WorkerStatus
from forebay_protocol.dataset import DatasetDocument, MountSpec, credentials_from_json
from forebay_protocol.errors import InvalidRequest, Unauthorized
from forebay_protocol.keys import ChunkKey, ObjectVersion
from forebay_protocol.ring import Member, Ring

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([2**64, -1, 10**400, math.inf])
)
JSON = st.recursive(
    LEAVES, lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4)
)
DOCUMENT = DatasetDocument(
    uid="u", namespace="n", name="d", mounts=(MountSpec(name="m", source="s3://bucket", path="/"),)
).to_json()
RING = Ring(epoch=1, members=(Member(id="w", address="::1", data_port=1, control_port=2),)).to_json()
STATUS = {
    "id": "w", "epoch": 1, "dataset_revision": "r", "cached_bytes": 0, "held_bytes": 0, "window_hit_bytes": 0,
    "index": {"state": "Ready", "generation": 1, "built_at": 0.0, "total_bytes": 0, "file_count": 0, "problems": []},
    "tiers": [{"medium": "SSD", "capacity_bytes": 1, "used_bytes": 0, "problem": None}], "window_miss_bytes": 0,
    "origin_bytes": 0, "peer_bytes": 0, "corrupt_chunks": 0, "keys": ["k"], "problems": [],
}  # fmt: skip
PARSERS: dict[str, tuple[Callable[[Any], object], Any]] = {
    "ring": (Ring.from_json, RING),
    "dataset": (DatasetDocument.from_json, DOCUMENT),
    "credentials": (credentials_from_json, {"m": {"accessKeyId": "a", "secretAccessKey": "s"}}),
    "status": (WorkerStatus.from_json, STATUS),
    "load request": (LoadRequest.from_json, LoadRequest(paths=("/a",), generation=2).to_json()),
    "load progress": (LoadProgress.from_json, LoadProgress(state=LoadState.RUNNING).to_json()),
}


@st.composite
def changed(draw: st.DrawFn, good: Any) -> Any:
    """A good document in which one part, anywhere, is replaced, removed or added."""
    value = draw(JSON)
    if draw(st.integers(0, 3)) == 0 or not isinstance(good, dict | list) or not good:
        return value
    if isinstance(good, list):
        place = draw(st.integers(0, len(good) - 1))
        return [*good[:place], draw(changed(good[place])), *good[place + 1 :]]
    name = draw(st.sampled_from([*good, "unknown"]))
    if draw(st.booleans()) and name in good:
        return {key: one for key, one in good.items() if key != name}
    return {**good, name: draw(changed(good.get(name)))}


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_documents(name: str, data: st.DataObject) -> None:
    """JSON of any shape, and good documents with anything in them: a value or InvalidRequest."""
    parse, good = PARSERS[name]
    raw = data.draw(JSON | changed(json.loads(json.dumps(good))))

    try:
        parse(raw)
    except InvalidRequest:
        return


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_ring_that_is_taken_can_be_used(data: st.DataObject) -> None:
    """What every answer and every look-up does with it never fails."""
    try:
        ring = Ring.from_json(data.draw(changed(RING)))
    except InvalidRequest:
        return
    ring.ranked(ChunkKey("ab" * 32, 3))
    wire.encode_response(wire.ResponseHead(0, 0, 1, ring.epoch, 0, 0))
    assert Ring.from_json(json.loads(json.dumps(ring.to_json()))) == ring


@pytest.mark.parametrize("number", [-1, 2**64, 10**400, math.inf, math.nan, "x", None])
@pytest.mark.parametrize("field", ["epoch", "dataPort", "controlPort", "capacity"])
def test_numbers_that_nobody_could_send_on(field: str, number: object) -> None:
    """A ring with one of them is refused: every answer carries its epoch."""
    member = {**RING["members"][0], field: number}
    with pytest.raises(InvalidRequest):
        Ring.from_json({**RING, "epoch": number} if field == "epoch" else {**RING, "members": [member]})


@given(head=st.binary(min_size=wire.REQUEST.size, max_size=wire.REQUEST.size), good=st.booleans())
@settings(max_examples=300, deadline=None)
def test_request_heads(head: bytes, good: bool) -> None:
    """Any bytes, also behind the right magic."""
    if good:
        head = wire.REQUEST_MAGIC + bytes([wire.Op.READ]) + head[5:]
    try:
        _flags, body_length, *_ = wire.decode_request_head(head)
    except InvalidRequest:
        return
    assert body_length < 1 << 16


@given(
    body=st.binary(max_size=400) | st.lists(st.binary(max_size=60), min_size=4, max_size=4).map(
        lambda parts: b"".join(len(part).to_bytes(2, "big") + part for part in parts)
    ),
    size=st.integers(0, 2**64 - 1),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_request_bodies(body: bytes, size: int) -> None:
    """What parses names an object, whose name on a disk is a digest whatever its parts are."""
    try:
        one = wire.decode_object(body, size)
    except InvalidRequest:
        return
    assert len(one.object_id) == 64
    assert set(one.object_id) <= set("0123456789abcdef")
    assert wire.encode_request(wire.ReadRequest(1, one, 0, 1))[wire.REQUEST.size :] == body


@given(raw=st.binary(min_size=wire.RESPONSE.size, max_size=wire.RESPONSE.size), good=st.booleans())
@settings(max_examples=200, deadline=None)
def test_response_heads(raw: bytes, good: bool) -> None:
    """Any bytes that a worker, or what pretends to be one, may send."""
    try:
        wire.decode_response(wire.RESPONSE_MAGIC + raw[4:] if good else raw)
    except InvalidRequest:
        return


@given(
    token=st.text(max_size=200)
    | st.builds(lambda version, expiry, rest: f"{version}.{expiry}.{rest}", st.just("v1"), st.text(), st.text())
    | st.binary(max_size=100).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
    | st.builds(lambda expiry, rest: f"v1.{expiry}.{rest}", st.integers(0), st.text(st.characters(max_codepoint=255))),
)
@settings(max_examples=500, deadline=None)
def test_tokens(token: str) -> None:
    """Nothing but what a key has signed opens anything, and nothing but Unauthorized says so."""
    with pytest.raises(Unauthorized):
        auth.verify((b"key", b"other"), token, "uid", 0.0)


@given(text=st.text())
@settings(max_examples=150, deadline=None)
def test_key_files(text: str) -> None:
    """Keys, none of them empty, or ValueError."""
    try:
        keys = auth.parse_keys(text)
    except ValueError:
        return
    assert all(keys)


@given(parts=st.lists(st.text(), min_size=4, max_size=4), size=st.integers(0, 2**64 - 1))
@settings(max_examples=200, deadline=None)
def test_identities_do_not_collide(parts: list[str], size: int) -> None:
    """Moving a character from one part to its neighbour makes another object."""
    try:
        whole = _named(parts, size)
    except UnicodeEncodeError:
        return
    for place in range(3):
        if parts[place]:
            moved = list(parts)
            moved[place], moved[place + 1] = parts[place][:-1], parts[place][-1] + parts[place + 1]
            assert _named(moved, size) != whole


def _named(parts: list[str], size: int) -> str:
    dataset, mount, key, version = parts
    return ObjectVersion(dataset, mount, key, version, size).object_id
