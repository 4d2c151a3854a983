"""Pages of ListObjectsV2: parsed, and believed only where they make sense."""

import xml.etree.ElementTree as ET
from datetime import datetime
from typing import NamedTuple
from urllib.parse import unquote_plus

from forebay.source.base import Listing
from forebay_protocol.errors import SourceInvalid


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
    fields = {_local(child.tag): child.text or "" for child in root}
    encoded = fields.get("EncodingType") == "url"
    try:
        listings = [one for child in root if (one := _entry(child, encoded)) is not None]
    except (KeyError, ValueError) as error:
        raise SourceInvalid(f"the store listed an object without a usable key, size, date or ETag ({error})") from error
    if any(not one.key.startswith(prefix) for one in listings):
        raise SourceInvalid("the store listed objects that were not asked for")
    truncated = fields.get("IsTruncated") == "true"
    next_token = fields.get("NextContinuationToken", "") if truncated else ""
    if truncated and not next_token:
        raise SourceInvalid("the store listed a part and does not say how to go on")
    listings.sort(key=lambda one: one.key.encode("utf-8", "surrogateescape"))
    return Page(listings, next_token)


def _entry(element: ET.Element, encoded: bool) -> Listing | None:
    kind = _local(element.tag)
    if kind == "Contents":
        value = {_local(child.tag): child.text or "" for child in element}
        version = value["ETag"].strip('"')
        size = int(value["Size"])
        if not version or size < 0:
            raise ValueError("empty ETag or negative size")
        moment = datetime.fromisoformat(value["LastModified"])
        mtime_ns = int(moment.timestamp() * 1000) * 1_000_000
        return Listing(_key(value["Key"], encoded), size, version, mtime_ns)
    if kind == "CommonPrefixes":
        return Listing(_key(next(child.text or "" for child in element), encoded), 0, "", 0)
    return None


def _key(text: str, encoded: bool) -> str:
    return unquote_plus(text, errors="surrogateescape") if encoded else text
