"""S3 and what speaks its protocol: signed requests of our own, each answer checked before its bytes are believed."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlsplit

from forebay.limits import Gate
from forebay.source import s3_credentials
from forebay.source.answers import Asked, check_range, http_date, retry_after, transport
from forebay.source.base import Arrived, Digest, InvalidCredentials, Listing
from forebay.source.deadline import PATIENCE, PROBE_SECONDS, Deadline, Patience
from forebay.source.digests import EtagDigests
from forebay.source.grant import Grant
from forebay.source.http_client import Answer, Attempt, HttpClient
from forebay.source.http_connection import Head, Host, Request
from forebay.source.location import parse_source
from forebay.source.meter import Meter
from forebay.source.reads import Reads, nobody, unchecked
from forebay.source.s3_listing import Page, error_code, parse_page
from forebay.source.sigv4 import Signer, encode, query_string
from forebay_protocol.dataset import Credentials, MountSpec
from forebay_protocol.errors import (
    InvalidRequest,
    ObjectChanged,
    ObjectMissing,
    SourceDenied,
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)

_DEFAULT_REGION = "us-east-1"

_UNKNOWN_KEYS = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed",
    "TokenRefreshRequired", "InvalidSecurity",
}  # fmt: skip
_WRONG_TIME = {"RequestTimeTooSkewed", "RequestExpired"}
_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName"}
_THROTTLED = {408, 429}


class S3Source:
    """One bucket (or a folder of it), read with one set of credentials."""

    def __init__(
        self, mount: MountSpec, credentials: Credentials | None, gate: Gate, grant: Grant, meter: Meter,
        patience: Patience = PATIENCE, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Nothing is sent yet."""
        location = parse_source(mount.source)
        self._bucket, self._prefix = location.container, location.key_prefix
        host = endpoint_host(mount)
        self._place = mount.endpoint or f"https://{host.name}"
        if mount.addressing == "virtual":
            host, self._root = host._replace(name=f"{self._bucket}.{host.name}"), "/"
        else:
            self._root = f"/{encode(self._bucket)}/"
        self._client = HttpClient(host, mount.ca_bundle, gate, patience)
        self._keys = _keys(credentials, grant)
        self._signer = Signer(mount.region or _DEFAULT_REGION, clock)
        self._extra = {"x-amz-request-payer": "requester"} if mount.requester_pays else {}
        self._meter = meter
        self._reads = Reads(meter, gate)
        # Over TLS the transport protects the bytes.
        self._digests = EtagDigests() if host.scheme == "http" else None

    def list(self, prefix_below_mount: str = "", delimiter: bool = False) -> Iterator[Listing]:
        """List page by page; a page that fails is asked for again."""
        prefix = self._prefix + prefix_below_mount
        parameters = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
        if delimiter:
            parameters["delimiter"] = "/"
        while True:
            page = self._reads.retries.run(lambda deadline: self._page(parameters, prefix, deadline))
            yield from page.listings
            if not page.next_token:
                return
            if page.next_token == parameters.get("continuation-token"):
                raise SourceInvalid(f"{self._what()} at {self._place}: the listing goes in a circle")
            parameters["continuation-token"] = page.next_token

    def _page(self, parameters: Mapping[str, str], prefix: str, limit: Deadline) -> Page:
        with self._exchange("", parameters, {}, limit, Attempt()) as answer:
            text = answer.text()
            if answer.head.status != 200:
                raise self._refused(answer.head, text, "")
            try:
                return parse_page(text, prefix)
            except SourceInvalid:
                # Only now, since pages are large: some stores send an error with status 200.
                if error_code(text):
                    raise self._refused(answer.head, text, "") from None
                raise

    def read_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview) -> None:
        """One range GET with If-Match; repeated where that can help, hedged where it takes long."""
        self.stream_into(key, version, size, offset, buffer, nobody)

    def stream_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview, arrived: Arrived) -> None:
        """As ``read_into``, telling what has arrived."""
        check = unchecked
        if self._digests is not None and len(buffer) == size:
            check = partial(self._digests.check, key, version)
        self._reads.fill(buffer, partial(self._fetch, key, version, Asked(size, offset, len(buffer))), arrived, check)

    def _fetch(
        self, key: str, version: str, whole: Asked,
        within: int, buffer: memoryview, limit: Deadline, attempt: Attempt, arrived: Arrived,
    ) -> Head:  # fmt: skip
        asked = whole.after(within)
        self._meter.requested()
        headers = {"Range": asked.header, "If-Match": f'"{version}"'}
        with self._exchange(key, {}, headers, limit, attempt, asked.length) as answer:
            if answer.head.status not in (200, 206):
                raise self._refused(answer.head, answer.text(), key)
            self._check_version(answer.head, version)
            check_range(answer.head, asked)
            answer.body_into(buffer, self._meter.received, arrived)
            return answer.head

    def _check_version(self, head: Head, version: str) -> None:
        etag = head.headers.get("etag", "").strip('"')
        if not etag:
            raise SourceInvalid("the store sent bytes without telling their ETag")
        if etag != version:
            raise ObjectChanged("the store answered with another version of the object; open the file again")

    def digest(self, key: str, version: str) -> Digest | None:
        """What the store says of the whole object, for stores that are read over plain HTTP; else None."""
        digests = self._digests
        if digests is None:
            return None

        def ask(limit: Deadline) -> Digest | None:
            headers = {"If-Match": f'"{version}"', "x-amz-checksum-mode": "ENABLED"}
            with self._exchange(key, {}, headers, limit, Attempt(), method="HEAD") as answer:
                if answer.head.status != 200:
                    raise self._refused(answer.head, b"", key)
                self._check_version(answer.head, version)
                return digests.of(version, answer.head)

        return self._reads.retries.run(ask)

    def probe(self) -> None:
        """List one key: it needs the same rights as the index does."""
        parameters = {"list-type": "2", "max-keys": "1", "prefix": self._prefix}
        self._page(parameters, self._prefix, Deadline(PROBE_SECONDS))

    def close(self) -> None:
        """Close the connections."""
        self._reads.close()
        self._client.close()

    @contextmanager
    def _exchange(
        self, key: str, parameters: Mapping[str, str], headers: dict[str, str], limit: Deadline, attempt: Attempt,
        expected: int = 0, method: str = "GET",
    ) -> Iterator[Answer]:  # fmt: skip
        path, query = self._root + encode(key, safe="/"), query_string(parameters)
        if not key and self._root != "/":
            path = self._root.rstrip("/")
        headers = {**headers, **self._extra}
        keys = self._keys()
        if keys is not None:
            headers = self._signer.sign(keys, method, path, query, headers, self._client.host.header)
        target = f"{path}?{query}" if query else path
        request = Request(method, target, {**headers, "User-Agent": "forebay"}, expected)
        with transport(self._what(key), self._place), self._client.exchange(request, limit, attempt) as answer:
            yield answer

    def _what(self, key: str = "") -> str:
        name = f"s3://{self._bucket}"
        return f"object {key!r} of {name}" if key else f"bucket {name}"

    def _refused(self, head: Head, text: bytes, key: str) -> SourceError:
        code, status = error_code(text), head.status
        said = f"{self._what(key)} at {self._place}: {code or status}"
        if code in _WRONG_TIME and (store_time := http_date(head.headers.get("date", ""))) is not None:
            self._signer.put_right(store_time)
            return SourceUnavailable(f"{said}; this machine's clock is wrong, the store's time is used from now on")
        region = head.headers.get("x-amz-bucket-region", "")
        for applies, kind, advice in (
            (code in _NO_BUCKET or (status == 404 and not key), SourceMissing, "create it or correct the source"),
            (status in (301, 307) and region, SourceMissing, f"the bucket is in {region}: set region to that"),
            (code in _UNKNOWN_KEYS or status == 401, InvalidCredentials, "correct the keys in the credentials Secret"),
            (status == 403, SourceDenied, "allow these credentials to list the bucket and to get its objects"),
            (status == 404, ObjectMissing, "the object was deleted, the next listing will not show it"),
            (status in (412, 416), ObjectChanged, "it was overwritten, open the file again for the new version"),
        ):
            if applies:
                return kind(f"{said}; {advice}")
        if status >= 500 or status in _THROTTLED or code in ("SlowDown", "InternalError"):
            advice = "the store fails or throttles, ask again later"
            return SourceUnavailable(f"{said}; {advice}", retry_after=retry_after(head))
        return SourceInvalid(f"{said}; status {status}; check endpoint, region and addressing of the mount")


def endpoint_host(mount: MountSpec) -> Host:
    """Where the mount's store listens; InvalidRequest when its endpoint or region is malformed."""
    region = mount.region or _DEFAULT_REGION
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    endpoint = mount.endpoint or f"https://s3.{region}.{domain}"
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise InvalidRequest(
            f"mount {mount.name}: endpoint {mount.endpoint!r} or region {mount.region!r} cannot be used; "
            "the endpoint is a URL such as https://host:port"
        )
    return Host(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def _keys(credentials: Credentials | None, grant: Grant) -> s3_credentials.KeyProvider:
    if credentials is not None:
        return s3_credentials.given(credentials)
    return s3_credentials.Surroundings() if grant.one_tenant else s3_credentials.anonymous
