"""Pages of ListObjectsV2: parsed, and believed only where they make sense."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import unquote_plus

from forebay.source.base import Listing
from forebay_protocol.errors import SourceInvalid

MAX_SIZE = 2**63 - 1
"""The largest size of an object that an index can hold, in bytes."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Page(NamedTuple):
    """Objects in order, and the token of the page that follows; empty for the last one."""

    listings: list[Listing]
    next_token: str


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def parse_xml(text: bytes) -> ET.Element:
    """The root of an answer; SourceInvalid when it is no XML."""
    try:
        return ET.fromstring(text)  # noqa: S314 - expat itself bounds what entities may expand to
    except ET.ParseError as error:
        raise SourceInvalid(f"the store's answer is no XML ({error})") from error


def error_code(text: bytes) -> str:
    """The S3 error code of an answer's body; empty when it has none."""
    try:
        root = parse_xml(text)
    except SourceInvalid:
        return ""
    if _local(root.tag) != "Error":
        return ""
    return next((child.text or "" for child in root if _local(child.tag) == "Code"), "")


def parse_page(text: bytes, prefix: str) -> Page:
    """Read one page; SourceInvalid when it is none, or not of this prefix."""
    root = parse_xml(text)
    if _local(root.tag) != "ListBucketResult":
        raise SourceInvalid("the store answered a listing with something else; check the mount's endpoint")
    names = {tag: _local(tag) for tag in {child.tag for child in root}}
    children: dict[str, list[ET.Element]] = {}
    for child in root:
        children.setdefault(names[child.tag], []).append(child)

    def field(name: str) -> str:
        return children[name][-1].text or "" if name in children else ""

    try:
        listings = _objects(children.get("Contents", []))
        listings += [Listing(one[0].text or "", 0, "", 0) for one in children.get("CommonPrefixes", [])]
    except (TypeError, ValueError, IndexError) as error:
        raise SourceInvalid(f"the store listed an object without a usable key, size, date or ETag ({error})") from error
    if field("EncodingType") == "url":
        listings = [_decoded(one) for one in listings]
    if any(not one.key.startswith(prefix) for one in listings):
        raise SourceInvalid("the store listed objects that were not asked for")
    truncated = field("IsTruncated") == "true"
    next_token = field("NextContinuationToken") if truncated else ""
    if truncated and not next_token:
        raise SourceInvalid("the store listed a part and does not say how to go on")
    listings.sort(key=lambda one: one.key.encode("utf-8", "surrogateescape"))
    return Page(listings, next_token)


def _objects(contents: list[ET.Element]) -> list[Listing]:
    """The objects as the page has them; a hot path: a dataset's listing has a million of them."""
    if not contents:
        return []
    namespace = contents[0].tag.removesuffix("Contents")
    names = (f"{namespace}Key", f"{namespace}Size", f"{namespace}ETag", f"{namespace}LastModified")
    keys, sizes, etags, dates = zip(*[[one.findtext(name) for name in names] for one in contents], strict=True)
    numbers = list(map(int, sizes))
    versions = [etag.strip('"') for etag in etags if etag]
    if None in keys or "" in keys or len(versions) < len(etags) or not all(versions):
        raise ValueError("no key, or no ETag")
    if min(numbers) < 0 or max(numbers) > MAX_SIZE:
        raise ValueError("a size that no object has")
    return list(map(Listing, keys, numbers, versions, map(_mtime_ns, dates)))


def _mtime_ns(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // _MILLISECOND * 1_000_000


def _decoded(one: Listing) -> Listing:
    if "%" in one.key or "+" in one.key:
        return one._replace(key=unquote_plus(one.key, errors="surrogateescape"))
    return one
