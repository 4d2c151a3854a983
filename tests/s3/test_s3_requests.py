"""How the S3 source asks: time limits, retries, hedges, clocks, identities, certificates; against real servers."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from forebay.limits import OPEN
from forebay.source import Grant, Listing, Meter, Source, open_source
from forebay.source.deadline import Patience
from forebay.source.grant import NOTHING
from forebay.source.hedge import SHARE
from forebay.source.retry import BELIEVED
from forebay.source.s3 import S3Source
from forebay_protocol.dataset import Credentials, MountSpec
from forebay_protocol.errors import (
    InvalidRequest,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from testkit import binaries
from testkit.buckets import Bucket
from testkit.progress import Progress
from testkit.store_proxy import Ending, StoreAnswer, StoreProxy
from testkit.waiting import eventually
from testkit.worker_processes import free_port

BODY = os.urandom(200_000)
SHORT = Patience(connect=2, head=1.0, least_rate=1e6, stall_seconds=0.5, stall_bytes=1000)


class Times:
    """A fault for the first so many answers that have a body."""

    def __init__(self, count: int, change: Callable[[StoreAnswer], None]) -> None:
        """``change`` breaks an answer in place."""
        self.left = count
        self._change = change
        self._lock = threading.Lock()

    def __call__(self, _: str, answer: StoreAnswer) -> None:
        """Break it while there is one left to break."""
        with self._lock:
            broken, self.left = self.left > 0 and answer.status == 206, self.left - (answer.status == 206)
        if broken:
            self._change(answer)


def _listed(source: Source, key: str = "one") -> Listing:
    return next(listing for listing in source.list() if listing.key == key)


def _read(source: Source, one: Listing, offset: int = 0, length: int | None = None) -> bytes:
    buffer = bytearray(one.size if length is None else length)
    source.read_into(one.key, one.version, one.size, offset, memoryview(buffer))
    return bytes(buffer)


@pytest.fixture
def meter() -> Meter:
    """Counts what the source asks."""
    return Meter()


@pytest.fixture
def source(bucket: Bucket, proxy: StoreProxy, keys: Credentials, meter: Meter) -> Iterator[S3Source]:
    """A bucket with one object behind the proxy, opened with little patience."""
    bucket.put({"one": BODY})
    opened = S3Source(bucket.mount(endpoint=proxy.url), keys, OPEN, NOTHING, meter, SHORT)
    yield opened
    opened.close()


def _ending(ending: Ending, cut: int) -> Callable[[StoreAnswer], None]:
    def change(answer: StoreAnswer) -> None:
        answer.cut, answer.ending = cut, ending

    return change


@pytest.mark.parametrize("ending", list(Ending))
@pytest.mark.parametrize("cut", [-1, 0, 100_000])
def test_an_answer_that_stops_is_asked_for_again(
    source: S3Source, proxy: StoreProxy, meter: Meter, ending: Ending, cut: int
) -> None:
    """Before its head, before its body, in its body; ended, reset, silent, or a byte now and then."""
    one = _listed(source)
    proxy.break_answers(Times(1, _ending(ending, cut)))

    assert _read(source, one) == BODY
    # A kept connection that ends without a word was idle too long: that is no failure of the store.
    unnoticed = cut < 0 and ending in (Ending.CLOSE, Ending.RESET)
    assert meter.retries == (0 if unnoticed else 1)


def test_a_listing_that_says_200_and_is_an_error(source: S3Source, proxy: StoreProxy, meter: Meter) -> None:
    """It is taken for the error that it tells, and so asked for again; what is no error either is not."""
    bodies = [b"<Error><Code>SlowDown</Code></Error>"]

    def refuse(_: str, answer: StoreAnswer) -> None:
        if bodies:
            answer.status, answer.body, answer.headers = 200, bodies.pop(), {}

    proxy.break_answers(refuse)
    assert [one.key for one in source.list()] == ["one"]
    assert meter.retries == 1

    bodies = [b"<Error><Code>NoSuchBucket</Code></Error>"] * 9
    with pytest.raises(SourceMissing, match="NoSuchBucket"):
        list(source.list())


def test_a_store_that_only_drips_fails_the_read(source: S3Source, proxy: StoreProxy) -> None:
    """The time for an attempt does not begin anew with each byte; the read ends, with an error."""
    one = _listed(source)
    proxy.break_answers(Times(1000, _ending(Ending.DRIP, 0)))

    with pytest.raises(SourceUnavailable):
        _read(source, one)


def test_a_failing_store_is_not_hammered(source: S3Source, proxy: StoreProxy, meter: Meter) -> None:
    """The budget of retries is used up once, not by every reader: then each read is one request."""
    one = _listed(source)

    def refuse(_: str, answer: StoreAnswer) -> None:
        answer.status, answer.body, answer.headers = 503, b"<Error><Code>SlowDown</Code></Error>", {}

    proxy.break_answers(refuse)
    for _ in range(60):
        with pytest.raises(SourceUnavailable):
            _read(source, one, 0, 100)

    assert meter.retries <= 100
    before = meter.requests
    with pytest.raises(SourceUnavailable):
        _read(source, one, 0, 100)
    assert meter.requests == before + 1


@pytest.mark.parametrize("status", [403, 404, 412])
def test_a_verdict_is_believed_when_it_is_given_often_enough(
    source: S3Source, proxy: StoreProxy, meter: Meter, status: int
) -> None:
    """A failing store says now and then that it lacks what it has: that costs a request, not an open file."""
    one = _listed(source)

    def refuse(answer: StoreAnswer) -> None:
        answer.status, answer.body, answer.headers = status, b"", {}

    proxy.break_answers(Times(2, refuse))
    assert _read(source, one) == BODY

    asked = meter.requests
    proxy.break_answers(Times(1000, refuse))
    with pytest.raises(SourceError) as caught:
        _read(source, one)
    assert not caught.value.retryable
    assert meter.requests == asked + BELIEVED


def test_the_slowest_requests_are_hedged(bucket: Bucket, proxy: StoreProxy, keys: Credentials, meter: Meter) -> None:
    """An answer that does not come is overtaken by a second one; few requests are doubled, however many are slow."""
    bucket.put({"one": BODY})
    source = S3Source(bucket.mount(endpoint=proxy.url), keys, OPEN, NOTHING, meter)
    one = _listed(source)
    reads = 0
    # On a busy machine some of these are hedged too: go on until another hedge is earned.
    while reads < 60 or SHARE * meter.requests < meter.hedged + 1.5:
        assert _read(source, one, reads, 50_000) == BODY[reads : reads + 50_000]
        reads += 1
    before = meter.hedged

    proxy.break_answers(Times(1, _ending(Ending.STALL, 20_000)))
    assert _read(source, one, 7, 50_000) == BODY[7 : 7 + 50_000]

    assert meter.hedged == before + 1
    assert meter.retries == 0
    assert meter.hedged <= SHARE * meter.requests
    # What the loser had brought is counted too.
    assert meter.bytes >= (reads + 1) * 50_000 + 20_000
    source.close()


def test_a_flipped_bit_over_plain_http_is_found(source: S3Source, proxy: StoreProxy) -> None:
    """An object that is read at once is compared with its MD5; bytes that do not match are fetched again."""
    one = _listed(source)

    def flip(answer: StoreAnswer) -> None:
        answer.body = bytes([answer.body[0] ^ 4]) + answer.body[1:]

    proxy.break_answers(Times(1, flip))

    assert _read(source, one) == BODY


def test_a_wrong_clock_is_put_right(bucket: Bucket, keys: Credentials, meter: Meter) -> None:
    """The store refuses signatures of two hours ago; the second attempt is signed by its own time."""
    bucket.put({"one": BODY})
    source = S3Source(bucket.mount(), keys, OPEN, NOTHING, meter, SHORT, clock=lambda: time.time() - 7200)

    assert _read(source, _listed(source)) == BODY
    assert meter.retries == 1


def _minio(folder: Path, keys: Credentials, *flags: str, **settings: str) -> Iterator[int]:
    """Another MinIO with settings of its own; its port."""
    port = free_port()
    argv = [str(binaries.fetch(Progress()).minio), "server", "--quiet", "--address", f"127.0.0.1:{port}", *flags]
    environment = {
        **os.environ, "MINIO_ROOT_USER": keys.access_key_id, "MINIO_ROOT_PASSWORD": keys.secret_access_key,
        "MINIO_CI_CD": "on", "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", **settings,
    }  # fmt: skip
    (folder / "data" / "one-bucket").mkdir(parents=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*argv, str(folder / "data")], env=environment, stdout=log, stderr=log)

    def listens() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listens, timeout=30, interval=0.05, what="MinIO listens")
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def minio_with_domain(tmp_path: Path, keys: Credentials) -> Iterator[int]:
    """A MinIO that knows buckets by host names."""
    yield from _minio(tmp_path, keys, MINIO_DOMAIN="store.test")


def _eventually_probed(source: Source) -> None:
    """MinIO listens before it serves."""

    def works() -> bool:
        try:
            source.probe()
        except SourceUnavailable:
            return False
        return True

    eventually(works, timeout=30, interval=0.1, what="the store serves")


def test_virtual_addressing(minio_with_domain: int, keys: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket is in the host's name, which the signature covers."""
    asked = []
    resolve = socket.getaddrinfo

    def resolved(host: str, *rest: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1" if host.endswith(".store.test") else host, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    mount = MountSpec(
        name="data", source="s3://one-bucket", path="/", addressing="virtual",
        endpoint=f"http://store.test:{minio_with_domain}",
    )  # fmt: skip
    source = open_source(mount, keys)
    _eventually_probed(source)

    assert list(source.list()) == []
    assert set(asked) == {"one-bucket.store.test"}
    with pytest.raises(SourceDenied):
        open_source(mount, replace(keys, secret_access_key="wrong")).probe()


@pytest.fixture
def tls_minio(tmp_path: Path, keys: Credentials) -> Iterator[tuple[int, str]]:
    """A MinIO with a certificate that nobody knows; its port and the certificate."""
    certificates = tmp_path / "certs"
    certificates.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=store",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(certificates / "private.key"),
         "-out", str(certificates / "public.crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    for port in _minio(tmp_path, keys, "--certs-dir", str(certificates)):
        yield port, (certificates / "public.crt").read_text()


def test_a_certificate_is_checked_against_the_bundle(tls_minio: tuple[int, str], keys: Credentials) -> None:
    """Trusted by caBundle; without it refused with a sentence that says so; a bundle of nothing is refused early."""
    port, certificate = tls_minio
    mount = MountSpec(name="data", source="s3://one-bucket", path="/", endpoint=f"https://127.0.0.1:{port}")
    trusted = open_source(replace(mount, ca_bundle=certificate), keys)
    _eventually_probed(trusted)

    assert list(trusted.list()) == []
    with pytest.raises(SourceUnavailable, match="caBundle"):
        open_source(mount, keys).probe()
    with pytest.raises(InvalidRequest, match="PEM"):
        open_source(replace(mount, ca_bundle="-----BEGIN CERTIFICATE-----"), keys)


_EMPTY = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'


@pytest.fixture
def recorder() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A store that notes the headers of its requests and lists nothing; its URL and the notes."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(_EMPTY)

        @override
        def log_message(self, format: str, *arguments: Any) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_requester_pays(recorder: tuple[str, list[dict[str, str]]], bucket: Bucket, keys: Credentials) -> None:
    """The header is sent and signed, and only where the mount says so."""
    url, seen = recorder
    mount = MountSpec(name="data", source="s3://one-bucket", path="/", endpoint=url)
    open_source(replace(mount, requester_pays=True), keys).probe()
    open_source(mount, keys).probe()

    assert seen[0]["x-amz-request-payer"] == "requester"
    assert "x-amz-request-payer" in seen[0]["authorization"]
    assert "x-amz-request-payer" not in seen[1]
    open_source(replace(bucket.mount(), requester_pays=True), keys).probe()


def test_a_session_token_is_sent_and_signed(recorder: tuple[str, list[dict[str, str]]], keys: Credentials) -> None:
    """Temporary keys come with a token."""
    url, seen = recorder
    mount = MountSpec(name="data", source="s3://one-bucket", path="/", endpoint=url)
    open_source(mount, replace(keys, session_token="a token")).probe()

    assert seen[0]["x-amz-security-token"] == "a token"
    assert "x-amz-security-token" in seen[0]["authorization"]


def test_the_workers_own_identity(
    recorder: tuple[str, list[dict[str, str]]], moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web identity becomes temporary keys by STS; whoever works for many tenants lends nobody his identity."""
    url, seen = recorder
    (tmp_path / "token").write_text("a token of the cluster")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    mount = MountSpec(name="data", source="s3://one-bucket", path="/", endpoint=url)

    open_source(mount, None, OPEN, Grant(one_tenant=True)).probe()
    assert "Credential=ASIA" in seen[0]["authorization"]
    assert "x-amz-security-token" in seen[0]

    open_source(mount, None).probe()
    assert "authorization" not in seen[1]

    (tmp_path / "token").unlink()
    with pytest.raises(SourceDenied, match="service account"):
        open_source(mount, None, OPEN, Grant(one_tenant=True)).probe()
