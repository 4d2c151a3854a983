"""Where a mount's bytes are: the parts of its source URL."""

from typing import NamedTuple

from forebay_protocol.errors import InvalidRequest


class Location(NamedTuple):
    """``scheme://container/prefix``; the prefix is a folder and carries neither a leading nor a closing slash."""

    scheme: str
    container: str
    prefix: str

    @property
    def key_prefix(self) -> str:
        """What every key of the mount begins with: empty, or the prefix and a slash."""
        return f"{self.prefix}/" if self.prefix else ""


def parse_source(source: str) -> Location:
    """Split a source URL. Keys are not URLs: nothing in the prefix is decoded."""
    scheme, separator, rest = source.partition("://")
    container, _, prefix = rest.partition("/")
    if not separator or not scheme or not container:
        raise InvalidRequest(f"the source {source!r} is not of the form scheme://bucket/prefix")
    return Location(scheme, container, prefix.rstrip("/"))
