"""The S3 source against real servers: what it lists and reads, and what it says when that fails."""

import os
from dataclasses import replace

import pytest

from forebay.source import InvalidCredentials, Listing, Source, open_source
from forebay_protocol.dataset import Credentials
from forebay_protocol.errors import (
    ForebayError,
    ObjectChanged,
    ObjectMissing,
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)
from testkit.buckets import Bucket
from testkit.store_proxy import Fault, StoreAnswer, StoreProxy
from testkit.worker_processes import free_port

BODY = os.urandom(300_000)


def _listed(source: Source, key: str) -> Listing:
    return next(listing for listing in source.list() if listing.key == key)


def _read(source: Source, one: Listing, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    source.read_into(one.key, one.version, one.size, offset, memoryview(buffer))
    return bytes(buffer)


@pytest.fixture
def source(bucket: Bucket, keys: Credentials) -> Source:
    """A bucket with one object, opened."""
    bucket.put({"one": BODY})
    return open_source(bucket.mount(), keys)


def test_awkward_keys_are_listed_in_order_and_read(bucket: Bucket, keys: Credentials) -> None:
    """Spaces, unicode, percent signs and plus signs survive listing and reading."""
    objects = {f"p/{name}": name.encode() for name in ("a b", "a%20b", "ünï", "x+y", "deep/er/one", "z&=?#")}
    bucket.put({**objects, "elsewhere": b"not ours"})
    source = open_source(bucket.mount("p"), keys)

    listed = list(source.list())

    assert [one.key for one in listed] == sorted(objects, key=str.encode)
    assert {one.key: _read(source, one, 0, one.size) for one in listed} == objects


def test_a_delimited_listing_shows_one_level(bucket: Bucket, keys: Credentials) -> None:
    """Common prefixes stand among the keys, in their order."""
    bucket.put({"b": b"1", "a/x": b"2", "a/y": b"3", "c/z": b"4"})

    listed = list(open_source(bucket.mount(), keys).list(delimiter=True))

    assert [(one.key, one.is_prefix) for one in listed] == [("a/", True), ("b", False), ("c/", True)]


def test_more_than_one_page_is_listed(moto_bucket: Bucket, keys: Credentials) -> None:
    """A listing goes on after the first thousand keys."""
    moto_bucket.put({f"{number:05}": b"" for number in range(1100)})

    listed = [one.key for one in open_source(moto_bucket.mount(), keys).list()]

    assert listed == [f"{number:05}" for number in range(1100)]


def test_any_range_is_read(source: Source) -> None:
    """The first, a middle and the last byte, and all of them."""
    one = _listed(source, "one")

    for offset, length in ((0, 1), (1000, 70_000), (len(BODY) - 1, 1), (0, len(BODY))):
        assert _read(source, one, offset, length) == BODY[offset : offset + length]


def test_an_overwritten_object_is_not_read_as_the_old_one(bucket: Bucket, source: Source) -> None:
    """Same key, same size, other bytes: ObjectChanged."""
    one = _listed(source, "one")
    bucket.put({"one": os.urandom(len(BODY))})

    with pytest.raises(ObjectChanged):
        _read(source, one, 0, 1000)


def test_a_deleted_object_is_missing(bucket: Bucket, source: Source) -> None:
    """The key is gone: ObjectMissing."""
    one = _listed(source, "one")
    bucket.client.delete_object(Bucket=bucket.name, Key="one")

    with pytest.raises(ObjectMissing):
        _read(source, one, 0, 1000)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"source": "s3://no-such-bucket-here"}, SourceMissing),
        ({"endpoint": f"http://127.0.0.1:{free_port()}"}, SourceUnavailable),
        ({"source": "s3://x"}, SourceMissing),
    ],
)
def test_a_wrong_place_is_told(
    bucket: Bucket, keys: Credentials, change: dict[str, str], expected: type[ForebayError]
) -> None:
    """No such bucket, nobody listening, an impossible name."""
    mount = bucket.mount()

    with pytest.raises(expected):
        open_source(replace(mount, **change), keys).probe()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        Credentials(access_key_id="nobody", secret_access_key="never-told"),
        Credentials(access_key_id="forebay-tests", secret_access_key="never-told"),
    ],
)
def test_wrong_credentials_are_told_without_showing_them(bucket: Bucket, wrong: Credentials) -> None:
    """An unknown key and a wrong secret; the message names no secret."""
    with pytest.raises(InvalidCredentials) as caught:
        open_source(bucket.mount(), wrong).probe()

    assert "never-told" not in str(caught.value)


def _shift_range(_: str, answer: StoreAnswer) -> None:
    answer.headers["Content-Range"] = f"bytes 7-{7 + len(answer.body) - 1}/{len(BODY)}"


def _ignore_range(_: str, answer: StoreAnswer) -> None:
    answer.status = 200
    answer.headers.pop("Content-Range", None)


def _other_version(_: str, answer: StoreAnswer) -> None:
    answer.headers["ETag"] = '"00000000000000000000000000000000"'


def _cut(_: str, answer: StoreAnswer) -> None:
    answer.cut = len(answer.body) // 2


def _error_page(_: str, answer: StoreAnswer) -> None:
    answer.body = b"<Error>sorry</Error>".ljust(len(answer.body), b" ")
    answer.status = 200
    answer.headers.pop("Content-Range", None)
    answer.headers.pop("ETag", None)


def _slow_down(_: str, answer: StoreAnswer) -> None:
    answer.status, answer.body = 503, b"<Error><Code>SlowDown</Code></Error>"
    answer.headers = {"Content-Type": "application/xml"}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (_shift_range, SourceInvalid),
        (_ignore_range, SourceInvalid),
        (_other_version, ObjectChanged),
        (_cut, SourceUnavailable),
        (_error_page, ForebayError),
        (_slow_down, SourceUnavailable),
    ],
)
def test_a_wrong_answer_is_an_error_and_never_bytes(
    bucket: Bucket, proxy: StoreProxy, keys: Credentials, fault: Fault, expected: type[ForebayError]
) -> None:
    """Shifted, ignored, other, cut, dressed-up and refused answers; afterwards the same source works again."""
    bucket.put({"one": BODY})
    source = open_source(bucket.mount(endpoint=proxy.url), keys)
    one = _listed(source, "one")
    proxy.break_answers(fault)

    with pytest.raises(expected):
        _read(source, one, 1000, 5000)

    proxy.break_answers(None)
    assert _read(source, one, 1000, 5000) == BODY[1000:6000]


def test_a_listing_that_is_no_listing_is_an_error(bucket: Bucket, proxy: StoreProxy, keys: Credentials) -> None:
    """A page of something else, and a listing under a failing status, which trips the client library itself."""
    bucket.put({"one": BODY})
    source = open_source(bucket.mount(endpoint=proxy.url), keys)

    proxy.break_answers(lambda _, answer: setattr(answer, "status", 503))
    with pytest.raises(SourceError):
        list(source.list(delimiter=True))

    proxy.break_answers(lambda _, answer: setattr(answer, "body", b"<html>".ljust(len(answer.body))))
    with pytest.raises(SourceError):
        list(source.list())


def test_one_bad_answer_is_asked_for_again(bucket: Bucket, proxy: StoreProxy, keys: Credentials) -> None:
    """A single 503 costs a retry, not an error."""
    bucket.put({"one": BODY})
    source = open_source(bucket.mount(endpoint=proxy.url), keys)
    one = _listed(source, "one")
    left = [1]

    def once(path: str, answer: StoreAnswer) -> None:
        if left:
            left.pop()
            _slow_down(path, answer)

    proxy.break_answers(once)

    assert _read(source, one, 0, 100) == BODY[:100]
