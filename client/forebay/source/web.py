"""Files of a web server that serves ranges: ``https://host/folder``.

The version of a file is its strong ETag, else its Last-Modified and its size; a server that tells neither is refused,
for nobody could say which version a byte is of.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from urllib.parse import quote, urlsplit

from forebay.limits import Gate
from forebay.source.answers import Asked, check_range, http_date, retry_after, transport
from forebay.source.base import Arrived, Listing
from forebay.source.deadline import PATIENCE, PROBE_SECONDS, Deadline, Patience
from forebay.source.http_client import Answer, Attempt, HttpClient
from forebay.source.http_connection import Head, Host, Request
from forebay.source.location import parse_source
from forebay.source.meter import Meter
from forebay.source.reads import Reads, nobody
from forebay.source.web_listing import Found, parse_manifest, parse_page
from forebay_protocol.dataset import MountSpec
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

_LOOKERS = 8
"""Requests at the same time of one folder's listing; several folders are listed at once."""

_MOST_KNOWN = 500_000
"""Files whose version is remembered from one listing to the next."""

_IDENTITY = {"Accept-Encoding": "identity", "User-Agent": "forebay"}
_DATED = "lm:"


class WebSource:
    """A folder of a web server."""

    def __init__(self, mount: MountSpec, gate: Gate, meter: Meter, patience: Patience = PATIENCE) -> None:
        """Nothing is sent yet."""
        location = parse_source(mount.source)
        self._prefix, self._manifest = location.key_prefix, mount.manifest
        try:
            parts = urlsplit(f"{location.scheme}://{location.container}")
            name, port = parts.hostname, parts.port
        except ValueError:
            name, port = None, None
        if not name or parts.username is not None:
            raise InvalidRequest(f"mount {mount.name}: {mount.source!r} is not of the form https://host:port/folder")
        self._place = f"{location.scheme}://{location.container}"
        host = Host(location.scheme, name, port or (443 if location.scheme == "https" else 80))
        self._client = HttpClient(host, mount.ca_bundle, gate, patience)
        self._meter = meter
        self._reads = Reads(meter, gate)
        self._known: dict[str, tuple[str, Listing]] = {}
        """What the last listing found out by a request for each file, and the hint that it holds for."""

    def list(self, prefix_below_mount: str = "", delimiter: bool = False) -> Iterator[Listing]:
        """The manifest's files, or those of the index pages; one request for each file that may have changed."""
        if self._manifest:
            yield from self._from_manifest(prefix_below_mount, delimiter)
        else:
            with ThreadPoolExecutor(_LOOKERS, "web-list") as lookers:
                yield from self._from_pages(prefix_below_mount, delimiter, lookers)

    def _from_manifest(self, below: str, delimiter: bool) -> Iterator[Listing]:
        text, _ = self._text(self._prefix + self._manifest)
        wanted = {one.name: one for one in parse_manifest(text) if one.name.startswith(below)}
        shown = [Found(folder, is_folder=True) for folder in _first_folders(wanted, below)] if delimiter else []
        files = [one for name, one in wanted.items() if not (delimiter and "/" in name[len(below) :])]
        with ThreadPoolExecutor(_LOOKERS, "web-list") as lookers:
            yield from self._looked_up("", [*shown, *files], lookers)

    def _from_pages(self, below: str, delimiter: bool, lookers: ThreadPoolExecutor) -> Iterator[Listing]:
        try:
            text, content_type = self._text(self._prefix + below)
        except ObjectMissing:
            if below:
                return
            raise SourceMissing(f"{self._place}: there is no folder {self._prefix!r}; correct the source") from None
        found = parse_page(text, content_type, self._target(self._prefix + below))
        for listing in self._looked_up(below, found, lookers):
            if listing.is_prefix and not delimiter:
                yield from self._from_pages(listing.key[len(self._prefix) :], delimiter, lookers)
            else:
                yield listing

    def _looked_up(self, below: str, found: Sequence[Found], lookers: ThreadPoolExecutor) -> Iterator[Listing]:
        """What was found, in the order of keys, each file with its version; files that vanished are left out."""
        ordered = sorted(found, key=lambda one: f"{one.name}/".encode() if one.is_folder else one.name.encode())
        for listing in lookers.map(partial(self._listing, below), ordered):
            if listing is not None:
                yield listing

    def _listing(self, below: str, one: Found) -> Listing | None:
        key = self._prefix + below + one.name
        if one.is_folder:
            return Listing(f"{key}/", 0, "", 0)
        if one.etag and one.size is not None:
            version = strong_etag(one.etag)
            if not version:
                raise SourceInvalid(f"{self._place}: the manifest's etag of {key!r} is not a strong one in quotes")
            return Listing(key, one.size, version, 0)
        hint, former = self._known.get(key, ("", None))
        if former is not None and one.hint and one.hint == hint:
            return former
        try:
            listing = self._reads.retries.run(lambda limit: self._look_at(key, limit))
        except ObjectMissing:
            return None
        if one.hint and len(self._known) < _MOST_KNOWN:
            self._known[key] = (one.hint, listing)
        return listing

    def _look_at(self, key: str, limit: Deadline) -> Listing:
        with self._exchange("HEAD", key, {}, limit, Attempt()) as answer:
            head = answer.head
            if head.status != 200:
                raise self._refused(head, key)
            version = version_of(head)
            size = head.headers.get("content-length", "")
            if not version or not size.isdigit():
                raise SourceInvalid(
                    f"{self._what(key)} at {self._place}: the server tells no length, or neither a strong ETag nor "
                    "Last-Modified; it cannot be cached safely"
                )
            mtime = http_date(head.headers.get("last-modified", "")) or 0.0
            return Listing(key, int(size), version, int(mtime) * 1_000_000_000)

    def _text(self, key: str) -> tuple[bytes, str]:
        """An index page or a manifest, and its content type."""

        def attempt(limit: Deadline) -> tuple[bytes, str]:
            with self._exchange("GET", key, {}, limit, Attempt()) as answer:
                text = answer.text()
                if answer.head.status != 200:
                    raise self._refused(answer.head, key)
                return text, answer.head.headers.get("content-type", "")

        return self._reads.retries.run(attempt)

    def read_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview) -> None:
        """One range GET on condition of the version; repeated where that can help, hedged where it takes long."""
        self.stream_into(key, version, size, offset, buffer, nobody)

    def stream_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview, arrived: Arrived) -> None:
        """As ``read_into``, telling what has arrived."""
        if not key.startswith(self._prefix):
            raise InvalidRequest("the key lies outside of its mount")
        self._reads.fill(buffer, partial(self._fetch, key, version, Asked(size, offset, len(buffer))), arrived)

    def _fetch(
        self, key: str, version: str, whole: Asked,
        within: int, buffer: memoryview, limit: Deadline, attempt: Attempt, arrived: Arrived,
    ) -> Head:  # fmt: skip
        asked = whole.after(within)
        self._meter.requested()
        condition = {} if version.startswith(_DATED) else {"If-Match": f'"{version}"'}
        headers = {"Range": asked.header, **condition}
        with self._exchange("GET", key, headers, limit, attempt, asked.length) as answer:
            if answer.head.status not in (200, 206):
                answer.text()
                raise self._refused(answer.head, key)
            if version_of(answer.head) != version:
                raise ObjectChanged(f"{self._what(key)} has another version now; open the file again")
            check_range(answer.head, asked)
            answer.body_into(buffer, self._meter.received, arrived)
            return answer.head

    def probe(self) -> None:
        """Ask for the folder's page or the manifest."""
        key = self._prefix + self._manifest
        with self._exchange("HEAD", key, {}, Deadline(PROBE_SECONDS), Attempt()) as answer:
            if answer.head.status == 404:
                raise SourceMissing(f"{self._place}: there is no {key!r}; correct the source")
            if answer.head.status != 200:
                raise self._refused(answer.head, "")

    def close(self) -> None:
        """Close the connections."""
        self._reads.close()
        self._client.close()

    def _target(self, key: str) -> str:
        """A key as the path of a request: the source's own part is a URL already, what lies below is not."""
        return "/" + self._prefix + quote(key[len(self._prefix) :], safe="/")

    @contextmanager
    def _exchange(
        self, method: str, key: str, headers: dict[str, str], limit: Deadline, attempt: Attempt, expected: int = 0
    ) -> Iterator[Answer]:
        request = Request(method, self._target(key), {**_IDENTITY, **headers}, expected)
        with transport(self._what(key), self._place), self._client.exchange(request, limit, attempt) as answer:
            yield answer

    def _what(self, key: str) -> str:
        return f"file {key!r}"

    def _refused(self, head: Head, key: str) -> SourceError:
        status = head.status
        said = f"{self._what(key)} at {self._place}: {status}"
        if status in (404, 410):
            return ObjectMissing(f"{said}; it was deleted, the next listing will not show it")
        if status in (401, 403):
            return SourceDenied(f"{said}; let the server give the file, and the folder's index, to anybody")
        if status in (412, 416):
            return ObjectChanged(f"{said}; it was overwritten, open the file again for the new version")
        if status >= 500 or status in (408, 429):
            return SourceUnavailable(f"{said}; the server fails or throttles", retry_after=retry_after(head))
        if 300 <= status < 400:
            place = head.headers.get("location", "another place")
            return SourceInvalid(f"{said}; redirects are not followed: name {place} in the source")
        return SourceInvalid(f"{said}; check the source")


def _first_folders(names: dict[str, Found], below: str) -> set[str]:
    """The folders directly below a prefix in which there are files."""
    return {below + rest.partition("/")[0] for name in names if "/" in (rest := name[len(below) :])}


def strong_etag(text: str) -> str:
    """The tag within its quotes; empty for a weak one, which may stand for other bytes."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else ""


def version_of(head: Head) -> str:
    """The version that an answer tells: strong ETag, else Last-Modified; empty when it tells none."""
    etag = strong_etag(head.headers.get("etag", ""))
    moment = head.headers.get("last-modified", "")
    return etag or (f"{_DATED}{moment}" if moment else "")
