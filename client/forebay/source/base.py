"""What Forebay asks of an object store, and what it may count on in return."""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Protocol

from forebay.limits import OPEN, Gate
from forebay.source.location import parse_source
from forebay_protocol.dataset import Credentials, MountSpec
from forebay_protocol.errors import InvalidRequest, SourceDenied


class Listing(NamedTuple):
    """One object as the store lists it. A common prefix of a delimited listing has no version and size 0."""

    key: str
    size: int
    version: str
    mtime_ns: int

    @property
    def is_prefix(self) -> bool:
        """Whether this stands for everything below ``key`` rather than for an object."""
        return not self.version


class InvalidCredentials(SourceDenied):
    """The store does not know these credentials, or their signature is wrong."""

    reason: ClassVar[str] = "InvalidCredentials"


class Source(Protocol):
    """One mount's store. Every method may be called from many threads at once."""

    def list(self, prefix_below_mount: str = "", delimiter: bool = False) -> Iterator[Listing]:
        """Objects in the order of their keys' UTF-8 bytes; with ``delimiter`` the level below the prefix only."""
        ...

    def read_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer with the bytes from ``offset`` of exactly this version, or raise a SourceError."""
        ...

    def probe(self) -> None:
        """Check cheaply that bucket and credentials work; raise the SourceError that a reader would meet."""
        ...

    def close(self) -> None:
        """Give back the connections."""
        ...


def open_source(mount: MountSpec, credentials: Credentials | None, gate: Gate = OPEN) -> Source:
    """The source that a mount names, asked through its gate; InvalidRequest when its scheme is not known."""
    scheme = parse_source(mount.source).scheme
    if scheme == "s3":
        # boto3 costs 30 MiB of memory: only processes that talk to the store pay for it.
        from forebay.source.s3 import S3Source

        return S3Source(mount, credentials, gate)
    raise InvalidRequest(f"the source {mount.source!r} of mount {mount.name!r} has an unknown scheme; s3:// is known")
