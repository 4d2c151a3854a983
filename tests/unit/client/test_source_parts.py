"""The parts that sources are made of: signatures, answers, retries, digests, pages, claims' folders."""

import hashlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.limits import OPEN
from forebay.source import Grant, Listing, Meter, open_source
from forebay.source.answers import Asked, check_range, retry_after
from forebay.source.deadline import PATIENCE, Deadline, Pace, Patience
from forebay.source.digests import EtagDigests
from forebay.source.folder import version_of as version_of_file
from forebay.source.hedge import HedgeBudget, LatencyRecord
from forebay.source.http_client import Attempt, HttpClient
from forebay.source.http_connection import Head, Host, MalformedAnswer, Request, parse_head
from forebay.source.retry import BELIEVED, Retries, RetryRules
from forebay.source.s3_listing import parse_page
from forebay.source.sigv4 import Keys, Signer, encode, query_string
from forebay.source.web import version_of
from forebay.source.web_listing import parse_manifest
from forebay.source.web_listing import parse_page as parse_web_page
from forebay_protocol.dataset import MountSpec
from forebay_protocol.errors import (
    ForebayError,
    InvalidRequest,
    ObjectChanged,
    ObjectMissing,
    SourceInvalid,
    SourceUnavailable,
)

KEYS = Keys("an-access-key", "a-secret", "")


@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), token=st.sampled_from(["", "a/token+="]))
@settings(max_examples=200, deadline=None)
def test_the_signature_is_the_sdks(key: str, token: str) -> None:
    """For keys of all kinds, with and without a session token."""
    keys = Keys(KEYS.access, KEYS.secret, token)
    path, query = "/bucket/" + encode(key, safe="/"), query_string({"prefix": key, "list-type": "2"})
    headers = {"Range": "bytes=0-9", "If-Match": '"tag"', "x-amz-request-payer": "requester"}
    ours = Signer("eu-central-1").sign(keys, "GET", path, query, headers, "store:9000")
    request = AWSRequest("GET", f"http://store:9000{path}?{query}", headers)
    request.headers["X-Amz-Content-SHA256"] = ours["x-amz-content-sha256"]
    request.context["timestamp"] = ours["x-amz-date"]
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    if token:
        request.headers["X-Amz-Security-Token"] = token
    theirs = S3SigV4Auth(BotoCredentials(keys.access, keys.secret, token or None), "s3", "eu-central-1")
    signature = theirs.signature(theirs.string_to_sign(request, theirs.canonical_request(request)), request)

    assert ours["Authorization"].endswith(f"Signature={signature}")


def test_keys_show_nothing() -> None:
    """Not in a log, not in a traceback."""
    assert "secret" not in repr(KEYS)


def _head(status: int, length: int | None, **headers: str) -> Head:
    return Head(status, {name.replace("_", "-"): value for name, value in headers.items()}, length, False, True)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (_head(206, 10, content_range="bytes 5-14/100"), None),
        (_head(206, 10, content_range="bytes 6-15/100"), SourceInvalid),
        (_head(206, 10, content_range="bytes 5-14/101"), ObjectChanged),
        (_head(206, 10, content_range="bytes 5-14/*"), SourceInvalid),
        (_head(206, 10), SourceInvalid),
        (_head(206, 9, content_range="bytes 5-14/100"), SourceInvalid),
        (_head(206, None, content_range="bytes 5-14/100"), SourceInvalid),
        (_head(206, 10, content_range="bytes 5-14/100", content_encoding="gzip"), SourceInvalid),
        (_head(200, 100), SourceInvalid),
        (_head(200, 10), SourceInvalid),
        (_head(204, 10), SourceInvalid),
    ],
)
def test_an_answer_must_be_the_range(head: Head, expected: type[ForebayError] | None) -> None:
    """Ten bytes from the fifth of a hundred, and nothing else."""
    if expected is None:
        check_range(head, Asked(100, 5, 10))
    else:
        with pytest.raises(expected):
            check_range(head, Asked(100, 5, 10))


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_head_is_parsed_or_refused(raw: bytes) -> None:
    """Whatever a store sends, the answer is a head or MalformedAnswer."""
    for text in (raw, b"HTTP/1.1 200 OK\r\n" + raw):
        try:
            head = parse_head(text, bodiless=False)
        except MalformedAnswer:
            continue
        assert head.length is None or head.length >= 0


def _served(answers: list[bytes], use: Callable[[HttpClient], object]) -> object:
    """Use a client of a server that answers each request with the next bytes and then ends the connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    client = HttpClient(Host("http", "127.0.0.1", listener.getsockname()[1]), "")
    try:
        return use(client)
    finally:
        client.close()
        listener.close()
        thread.join(10)


def _text(client: HttpClient) -> bytes:
    with client.exchange(Request("GET", "/", {}), Deadline(20), Attempt()) as answer:
        return answer.text()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
)
def test_every_framing_of_a_small_answer(answer: bytes) -> None:
    """Announced, chunked, and until the end."""
    assert _served([answer], _text) == b"hello"


@pytest.mark.parametrize(
    "answer",
    [
        b"hello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    ],
)
def test_a_malformed_answer_is_refused(answer: bytes) -> None:
    """Lengths that contradict, lie or are endless."""
    with pytest.raises((MalformedAnswer, ConnectionError)):
        _served([answer], _text)


def test_a_header_cannot_be_smuggled() -> None:
    """A line break in what a user wrote ends in an error, not in another header."""

    def ask(client: HttpClient) -> None:
        with client.exchange(Request("GET", "/", {"x": "a\r\nb: c"}), Deadline(5), Attempt()):
            pass

    with pytest.raises(ValueError, match="line break"):
        _served([], ask)


def test_retry_after_is_the_least_pause() -> None:
    """The store's own wish comes before the jitter; one that is longer than the read may take ends it."""
    pauses: list[float] = []

    def throttled(_: Deadline) -> None:
        raise SourceUnavailable("slow down", retry_after=7.0 if len(pauses) < 3 else 100.0)

    with pytest.raises(SourceUnavailable) as caught:
        Retries(Meter(), RetryRules(seconds=25), pauses.append).run(throttled)

    assert len(pauses) == 3
    assert all(7.0 <= pause <= 7.5 for pause in pauses)
    assert caught.value.retry_after == 100.0
    assert retry_after(_head(503, 0, retry_after="7")) == 7.0
    assert retry_after(_head(503, 0, retry_after="Thu, 01 Jan 1970 00:00:00 GMT")) == 0.0
    assert retry_after(_head(503, 0, retry_after="soon")) is None


def test_retries_live_on_what_succeeds() -> None:
    """A store that answers half of its requests is asked until it answers; one that never does is soon left alone."""
    meter, asked = Meter(), 0
    retries = Retries(meter, sleep=lambda _: None)

    def every_other(_: Deadline) -> None:
        nonlocal asked
        asked += 1
        if asked % 2:
            raise SourceUnavailable("not now")

    def never(_: Deadline) -> None:
        raise SourceUnavailable("never")

    for _ in range(500):
        retries.run(every_other)
    assert meter.retries == 500
    for _ in range(500):
        with pytest.raises(SourceUnavailable):
            retries.run(never)
    assert meter.retries == 600


def test_hedges_are_earned() -> None:
    """One in fifty requests, and little is saved up."""
    budget = HedgeBudget()
    taken = 0
    for _ in range(1000):
        budget.earn()
        taken += budget.take()
    assert 18 <= taken <= 20
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.take() for _ in range(100)) == 4


def test_slow_is_what_few_requests_are() -> None:
    """Unknown at first; then longer than 95 of 100, and more than four times the median."""
    record = LatencyRecord()
    assert record.long is None
    for number in range(100):
        record.add(1.0 if number % 20 else 5.0)
    assert record.long == 5.0
    even = LatencyRecord()
    for _ in range(100):
        even.add(1.0)
    assert even.long == 4.0


def test_an_etag_that_is_no_md5_is_seen_to_be_none() -> None:
    """The same bytes three times, and no match: it is the tag that is something else; other bytes are still doubted."""
    head, digests = _head(206, 3), EtagDigests()
    large, other = memoryview(bytes(1 << 20)), memoryview(bytes(1 << 20) + b"x")
    for data in (large, large, other, other):
        with pytest.raises(SourceInvalid):
            digests.check("a", "0" * 32, head, data)
    digests.check("a", "0" * 32, head, other)
    digests.check("b", "0" * 32, head, large)
    parts, encrypted = EtagDigests(), EtagDigests()
    parts.check("a", "0" * 32 + "-2", head, memoryview(b"abc"))
    encrypted.check("a", "0" * 32, _head(206, 3, x_amz_server_side_encryption="aws:kms"), memoryview(b"abc"))


def _check_often(digests: EtagDigests, times: int) -> None:
    for _ in range(times):
        with pytest.raises(SourceInvalid):
            digests.check("a", "0" * 32, _head(206, 1), memoryview(b"a"))


def test_a_flip_that_comes_twice_is_no_proof_against_the_etag() -> None:
    """One byte has eight bits to flip: it takes eleven of the same until it is believed."""
    digests = EtagDigests()
    _check_often(digests, 10)
    digests.check("a", "0" * 32, _head(206, 1), memoryview(b"a"))


def test_an_object_with_a_strange_etag_costs_the_others_nothing() -> None:
    """Where an ETag has matched, one that never does is believed of its object alone."""
    digests, data = EtagDigests(), memoryview(b"b")
    digests.check("b", hashlib.md5(data, usedforsecurity=False).hexdigest(), _head(206, 1), data)
    _check_often(digests, 10)
    digests.check("a", "0" * 32, _head(206, 1), memoryview(b"a"))
    digests.check("a", "0" * 32, _head(206, 1), memoryview(b"a"))

    with pytest.raises(SourceInvalid):
        digests.check("b", hashlib.md5(data, usedforsecurity=False).hexdigest(), _head(206, 1), memoryview(b"c"))


_ENTRY = "<Contents><Key>{}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag><LastModified>2026-01-02T03:04:05.678Z</LastModified></Contents>"  # noqa: E501
_PAGE = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{}</ListBucketResult>'


def test_a_page_of_a_listing() -> None:
    """Encoded and plain keys, in the order of their bytes."""
    encoded = _PAGE.format("<EncodingType>url</EncodingType>" + _ENTRY.format("p/b+%2B%25") + _ENTRY.format("p/%C3%BC"))
    plain = _PAGE.format(_ENTRY.format("p/b+%2B"))

    assert parse_page(encoded.encode(), "p/").listings == [
        Listing("p/b +%", 1, "e", 1767323045678000000), Listing("p/ü", 1, "e", 1767323045678000000),
    ]  # fmt: skip
    assert [one.key for one in parse_page(plain.encode(), "p/").listings] == ["p/b+%2B"]


@pytest.mark.parametrize(
    "text",
    [
        "<html></html>", "no xml", "<Error><Code>SlowDown</Code></Error>",
        _PAGE.format(_ENTRY.format("elsewhere")),
        _PAGE.format("<IsTruncated>true</IsTruncated>"),
        _PAGE.format(_ENTRY.format("p/a").replace("<Size>1</Size>", "")),
        _PAGE.format(_ENTRY.format("p/a").replace("<Size>1", "<Size>-1")),
        _PAGE.format(_ENTRY.format("p/a").replace("&quot;e&quot;", "&quot;&quot;")),
    ],
)  # fmt: skip
def test_what_is_no_listing_is_refused(text: str) -> None:
    """Other documents, other prefixes, ends that are none, objects without size or version."""
    with pytest.raises(SourceInvalid):
        parse_page(text.encode(), "p/")


def test_an_index_page_leads_nowhere_else() -> None:
    """Only what lies directly below the page: no parents, no other hosts, no sorted views, no deeper paths."""
    links = [
        "../",
        "/",
        "?C=N",
        "http://elsewhere/f/x",
        "//elsewhere/f/y",
        "/f/",
        "a",
        "b%20c/",
        "/f/d",
        "e/g",
        "#h",
        "..%2Fi",
        "./j",
    ]
    page = "".join(f'<a href="{link}">x</a>' for link in links)

    assert [(one.name, one.is_folder) for one in parse_web_page(page.encode(), "text/html", "/f/")] == [
        ("a", False), ("b c", True), ("d", False), ("j", False),
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["/etc/passwd", "../x", "a//b", '{"size": 1}', '{"path": "a", "size": -1}', "{"])
def test_a_manifest_names_what_lies_below(line: str) -> None:
    """Nothing absolute, nothing above, nothing malformed."""
    with pytest.raises(SourceInvalid):
        parse_manifest(line.encode())


def _claim(folder: Path, source: str = "pvc://claim") -> object:
    return open_source(MountSpec(name="m", source=source, path="/"), None, OPEN, Grant(one_tenant=True, claims=folder))


def test_nothing_in_a_claim_leads_out_of_it(tmp_path: Path) -> None:
    """Links are neither shown nor followed, pipes do not hang, and no path climbs."""
    claim = tmp_path / "claim"
    (claim / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (claim / "plain").write_text("plain")
    (claim / "link").symlink_to(tmp_path / "secret")
    (claim / "loop").symlink_to(claim)
    os.mkfifo(claim / "pipe")
    source = open_source(
        MountSpec(name="m", source="pvc://claim", path="/"), None, OPEN, Grant(one_tenant=True, claims=tmp_path)
    )

    version = version_of_file((tmp_path / "secret").stat())
    assert [one.key for one in source.list()] == ["plain"]
    for key in ("link", "loop/plain", "pipe", "../secret", "folder/../../secret", "/etc/passwd", ""):
        with pytest.raises((ObjectChanged, ObjectMissing, InvalidRequest, SourceUnavailable)):
            source.read_into(key, version, 6, 0, memoryview(bytearray(6)))
    for name in ("pvc://..", "pvc://claim/../other", "pvc://./x"):
        with pytest.raises(InvalidRequest):
            _claim(tmp_path, name)


def test_a_file_that_is_written_in_place_is_another_version(tmp_path: Path) -> None:
    """Same inode, same size, other bytes."""
    (tmp_path / "claim").mkdir()
    file = tmp_path / "claim" / "one"
    file.write_bytes(b"a" * 1000)
    source = open_source(
        MountSpec(name="m", source="pvc://claim", path="/"), None, OPEN, Grant(one_tenant=True, claims=tmp_path)
    )
    [one] = source.list()
    with file.open("r+b") as writer:
        writer.write(b"b")
    os.utime(file, ns=(one.mtime_ns, one.mtime_ns))

    with pytest.raises(ObjectChanged):
        source.read_into(one.key, one.version, one.size, 0, memoryview(bytearray(10)))


@pytest.mark.parametrize("source", ["pvc://claim", "https://host/x", "fsspec+memory://x", "blobs://x"])
def test_other_sources_are_read_by_workers_only(source: str) -> None:
    """A node plugin works for many tenants: its network, files and identity are not to be read through it."""
    with pytest.raises(InvalidRequest, match="workers only"):
        open_source(MountSpec(name="m", source=source, path="/"), None)


@pytest.mark.parametrize("source", ["fsspec+file://x/etc", "fsspec+local://x/etc", "fsspec+nosuch://x/y", "what://x"])
def test_a_source_that_nobody_serves_is_told(source: str) -> None:
    """In words that say which there are, or what is missing."""
    with pytest.raises(InvalidRequest, match=r"may not name|install|known are"):
        open_source(MountSpec(name="m", source=source, path="/"), None, OPEN, Grant(one_tenant=True))


def test_a_weak_etag_is_no_version() -> None:
    """It may stand for other bytes: then the time of modification is the version, and without one there is none."""
    moment = "Fri, 02 Jan 2026 03:04:05 GMT"

    assert version_of(_head(200, 1, etag='"a"', last_modified=moment)) == "a"
    assert version_of(_head(200, 1, etag='W/"a"', last_modified=moment)) == f"lm:{moment}"
    assert version_of(_head(200, 1, etag='W/"a"')) == ""


def test_a_drip_is_no_answer() -> None:
    """Bytes that come too slowly end the request, however many requests' worth of time is left."""
    slow = Patience(stall_seconds=0.0, stall_bytes=100)

    Pace(slow).arrived(100)
    with pytest.raises(TimeoutError):
        Pace(slow).arrived(99)


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_every_read_has_a_condition(scheme: str) -> None:
    """The version that is wanted goes with the request: the store itself refuses to send another one."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(BELIEVED):
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    mount = MountSpec(name="m", source="s3://bucket" if scheme == "s3" else f"{url}/files", path="/", endpoint=url)
    source = open_source(mount, None, OPEN, Grant(one_tenant=scheme == "http"))
    key = "one" if scheme == "s3" else "files/one"

    with pytest.raises(ObjectChanged):
        source.read_into(key, "a-tag", 10, 2, memoryview(bytearray(5)))
    thread.join(20)
    listener.close()
    assert all(b'If-Match: "a-tag"\r\n' in one and b"Range: bytes=2-6\r\n" in one for one in asked)


def test_patience_grows_with_the_length() -> None:
    """A large range on a slow link is granted more time than a small one."""
    assert PATIENCE.whole(4 << 20) == PATIENCE.head + 16
