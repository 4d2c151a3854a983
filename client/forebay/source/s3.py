"""S3 by boto3, believed in nothing: status, range, length and version of every answer are checked here."""

import random
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import botocore
import botocore.exceptions as foreign
from botocore.config import Config

from forebay.limits import Gate
from forebay.source.base import InvalidCredentials, Listing
from forebay.source.location import parse_source
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

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

T = TypeVar("T")

_CONNECT_SECONDS = 3
_READ_SECONDS = 10
_ATTEMPTS = 3
_RETRY_SECONDS = 5
"""No further attempt begins after that: whoever waits has other places to ask, or a problem to report."""

_CONNECTIONS = 32
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_UNKNOWN_KEYS = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed",
    "TokenRefreshRequired", "InvalidSecurity",
}  # fmt: skip
_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName"}
_THROTTLED = {408, 429}


_Page = tuple[list[Listing], str | None]
"""Objects in order, and the token of the page that follows."""


class S3Source:
    """One bucket (or a folder of it), read with one set of credentials."""

    def __init__(self, mount: MountSpec, credentials: Credentials | None, gate: Gate) -> None:
        """Make the client; nothing is sent yet."""
        self._gate = gate
        self._mount = mount
        self._location = parse_source(mount.source)
        self._place = mount.endpoint or "the store's default endpoint"
        try:
            self._client = _client(mount, credentials)
        except (ValueError, foreign.BotoCoreError) as error:
            raise InvalidRequest(
                f"mount {mount.name}: endpoint {mount.endpoint!r} or region {mount.region!r} cannot be used; "
                "the endpoint is a URL such as https://host:port"
            ) from error

    def list(self, prefix_below_mount: str = "", delimiter: bool = False) -> Iterator[Listing]:
        """List page by page; a page that fails is asked for again."""
        wanted: dict[str, Any] = {
            "Bucket": self._location.container,
            "Prefix": self._location.key_prefix + prefix_below_mount,
        }
        if delimiter:
            wanted["Delimiter"] = "/"
        while True:
            listings, next_token = self._retried(
                lambda: self._through(0, lambda: self._call(lambda: self._page(wanted)))
            )
            yield from listings
            if next_token is None:
                return
            wanted["ContinuationToken"] = next_token

    def _page(self, wanted: dict[str, Any]) -> _Page:
        """Ask for one page."""
        page = self._client.list_objects_v2(**wanted)
        listings = sorted(_listings(page), key=lambda listing: listing.key.encode("utf-8", "surrogateescape"))
        return listings, page["NextContinuationToken"] if page.get("IsTruncated") else None

    def read_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview) -> None:
        """One range GET with If-Match; quick retries where another attempt can help."""
        self._retried(lambda: self._through(len(buffer), lambda: self._read_once(key, version, size, offset, buffer)))

    def _read_once(self, key: str, version: str, size: int, offset: int, buffer: memoryview) -> None:
        end = offset + len(buffer) - 1
        answer = self._call(
            lambda: self._client.get_object(
                Bucket=self._location.container, Key=key, Range=f"bytes={offset}-{end}", IfMatch=f'"{version}"'
            ),
            key,
        )
        body = answer["Body"]
        try:
            check_range(answer, version, size, offset, len(buffer))
            self._call(lambda: _fill(body, buffer), key)
        finally:
            body.close()

    def probe(self) -> None:
        """List one key: it needs the same rights as the index does."""
        place = self._location
        wanted: dict[str, Any] = {"Bucket": place.container, "Prefix": place.key_prefix, "MaxKeys": 1}
        self._through(0, lambda: self._call(lambda: self._client.list_objects_v2(**wanted)))

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def _through(self, length: int, request: Callable[[], T]) -> T:
        with self._gate.request(length):
            return request()

    def _retried(self, attempt: Callable[[], T]) -> T:
        last_start = time.monotonic() + _RETRY_SECONDS
        for left in reversed(range(_ATTEMPTS)):
            try:
                return attempt()
            except (SourceUnavailable, SourceInvalid) as error:
                if not left or not error.retryable or time.monotonic() > last_start:
                    raise
                time.sleep(random.uniform(0.05, 0.2) * (_ATTEMPTS - left))  # noqa: S311 - jitter is no secret
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _call(self, call: Callable[[], T], key: str = "") -> T:
        """Run one call of the library and turn its errors into ours."""
        try:
            return call()
        except foreign.ClientError as error:
            raise self._answered(error, key) from error
        except (foreign.NoCredentialsError, foreign.PartialCredentialsError) as error:
            raise SourceDenied(f"{self._what(key)}: no credentials; name a Secret in credentialsSecretRef") from error
        except (foreign.ParamValidationError, foreign.InvalidRegionError) as error:
            raise SourceMissing(f"{self._what(key)}: not a valid bucket, endpoint or region; correct it") from error
        except (foreign.ConnectionError, foreign.HTTPClientError, foreign.IncompleteReadError, OSError) as error:
            raise SourceUnavailable(
                f"{self._what(key)}: {self._place} cannot be reached or broke off ({type(error).__name__}); "
                "check the endpoint, DNS and network policies"
            ) from error
        except (foreign.BotoCoreError, AttributeError, LookupError, TypeError, ValueError) as error:
            # The library trusts what it parses: an answer that is no S3 makes it stumble over its own types.
            raise SourceInvalid(f"{self._what(key)}: unusable answer ({type(error).__name__})") from error

    def _what(self, key: str) -> str:
        name = f"s3://{self._location.container}"
        return f"object {key!r} of {name}" if key else f"bucket {name}"

    def _answered(self, error: foreign.ClientError, key: str) -> SourceError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        said = f"{self._what(key)} at {self._place}: {code or status}"
        for applies, kind, advice in (
            (code in _NO_BUCKET or (status == 404 and not key), SourceMissing, "create it or correct the source"),
            (code in _UNKNOWN_KEYS or status == 401, InvalidCredentials, "correct the keys in the credentials Secret"),
            (status == 403, SourceDenied, "allow these credentials to list the bucket and to get its objects"),
            (status == 404, ObjectMissing, "the object was deleted, the next listing will not show it"),
            (status in (412, 416), ObjectChanged, "it was overwritten, open the file again for the new version"),
            (status >= 500 or status in _THROTTLED, SourceUnavailable, "the store fails or throttles, ask again later"),
        ):
            if applies:
                return kind(f"{said}; {advice}")
        return SourceInvalid(f"{said}; status {status}; check endpoint, region and addressing of the mount")


def _client(mount: MountSpec, credentials: Credentials | None) -> "S3Client":
    session = boto3.Session()
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        max_pool_connections=_CONNECTIONS,
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "virtual" if mount.addressing == "virtual" else "path"},
        # Ranges carry no checksum, and stores that are not S3 choke on being asked for one.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    if credentials is None and session.get_credentials() is None:
        config = config.merge(Config(signature_version=botocore.UNSIGNED))
    return session.client(
        "s3",
        endpoint_url=mount.endpoint or None,
        region_name=mount.region or "us-east-1",
        config=config,
        aws_access_key_id=credentials.access_key_id if credentials else None,
        aws_secret_access_key=credentials.secret_access_key if credentials else None,
        aws_session_token=credentials.session_token or None if credentials else None,
    )


def _listings(page: Any) -> Iterator[Listing]:
    for one in page.get("Contents", ()):
        mtime_ns = int(one["LastModified"].timestamp() * 1000) * 1_000_000
        yield Listing(one["Key"], int(one["Size"]), one["ETag"].strip('"') or "-", mtime_ns)
    for prefix in page.get("CommonPrefixes", ()):
        yield Listing(prefix["Prefix"], 0, "", 0)


def check_range(answer: Any, version: str, size: int, offset: int, length: int) -> None:
    """Raise unless the head of a GET's answer announces exactly this range of exactly this version."""
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    etag = str(answer.get("ETag", "")).strip('"')
    if etag != version:
        raise ObjectChanged("the store answered with another version of the object; open the file again")
    if int(answer.get("ContentLength", -1)) != length:
        raise SourceInvalid(f"the store announced {answer.get('ContentLength')} bytes where {length} were asked for")
    if status == 200:
        if offset == 0 and length == size:
            return
        raise SourceInvalid("the store ignored the range that was asked for; it must support range requests")
    match = _CONTENT_RANGE.fullmatch(str(answer.get("ContentRange", "")))
    if status != 206 or match is None:
        raise SourceInvalid(f"the store answered status {status} without a usable Content-Range")
    first, last, total = (int(part) for part in match.groups())
    if total != size:
        raise ObjectChanged(f"the object has {total} bytes now, not {size}; open the file again")
    if (first, last) != (offset, offset + length - 1):
        raise SourceInvalid(f"the store sent bytes {first}-{last} where {offset}-{offset + length - 1} were asked for")


def _fill(body: Any, buffer: memoryview) -> None:
    position = 0
    while position < len(buffer):
        count = body.readinto(buffer[position:])
        if not count:
            raise OSError(f"the answer ended after {position} of {len(buffer)} bytes")
        position += count
    if body.read(1):
        raise OSError("the answer is longer than it announced")
