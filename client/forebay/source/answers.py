"""What every answer over HTTP is checked for: status, range, length; and what its failures are called."""

import email.utils
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from forebay.source.http_connection import Head, MalformedAnswer
from forebay_protocol.errors import ObjectChanged, SourceInvalid, SourceUnavailable

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_LONGEST_RETRY_AFTER = 3600.0


class Asked(NamedTuple):
    """A range of an object: ``length`` bytes from ``offset`` of ``size``."""

    size: int
    offset: int
    length: int

    @property
    def header(self) -> str:
        """The Range header."""
        return f"bytes={self.offset}-{self.offset + self.length - 1}"

    def after(self, count: int) -> "Asked":
        """The range without its first ``count`` bytes."""
        return Asked(self.size, self.offset + count, self.length - count)


def check_range(head: Head, asked: Asked) -> None:
    """Raise unless the head of a GET's answer announces exactly this range of an object of this size."""
    if head.status == 206:
        _check_partial(head, asked)
    elif head.status != 200:
        raise SourceInvalid(f"the store answered a read with status {head.status}")
    elif (asked.offset, asked.length) != (0, asked.size):
        raise SourceInvalid("the store ignored the range that was asked for; it must support range requests")
    if head.length != asked.length:
        raise SourceInvalid(f"the store announced {head.length} bytes where {asked.length} were asked for")
    if head.headers.get("content-encoding", "identity") not in ("identity", "aws-chunked", ""):
        raise SourceInvalid("the store sent encoded content where the object's own bytes were asked for")


def _check_partial(head: Head, asked: Asked) -> None:
    match = _CONTENT_RANGE.fullmatch(head.headers.get("content-range", ""))
    if match is None:
        raise SourceInvalid("the store answered status 206 without a usable Content-Range")
    first, last, total = (int(part) for part in match.groups())
    if total != asked.size:
        raise ObjectChanged(f"the object has {total} bytes now, not {asked.size}; open the file again")
    if (first, last) != (asked.offset, asked.offset + asked.length - 1):
        raise SourceInvalid(f"the store sent bytes {first}-{last} where {asked.header} were asked for")


def retry_after(head: Head) -> float | None:
    """Seconds that the store asks to wait, given as a number or as a date; None when it asks for nothing."""
    text = head.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        moment = http_date(text)
        if moment is None:
            return None
        seconds = moment - time.time()
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def http_date(text: str) -> float | None:
    """Unix time of an HTTP date; None when it is none."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None


@contextmanager
def transport(what: str, place: str) -> Iterator[None]:
    """Call by our names what goes wrong between here and the store."""
    try:
        yield
    except MalformedAnswer as error:
        raise SourceInvalid(f"{what} at {place}: {error}") from error
    except ssl.SSLCertVerificationError as error:
        raise SourceUnavailable(
            f"{what}: the certificate of {place} is not trusted ({error.verify_message}); "
            "put its authority's certificate into caBundle, or correct the endpoint"
        ) from error
    except OSError as error:
        raise SourceUnavailable(
            f"{what}: {place} cannot be reached or broke off ({type(error).__name__}: {error}); "
            "check the endpoint, DNS and network policies"
        ) from error
