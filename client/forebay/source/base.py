"""What Forebay asks of an object store, and what it may count on in return."""

from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

from forebay_protocol.errors import SourceDenied


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


class Digest(NamedTuple):
    """What a store says that all bytes of an object add up to: ``crc32c`` (4 bytes, big-endian) or ``md5``."""

    algorithm: str
    value: bytes


@runtime_checkable
class Digesting(Protocol):
    """A source whose transport protects nothing, but whose store knows digests of whole objects."""

    def digest(self, key: str, version: str) -> Digest | None:
        """The digest of exactly this version; None when the store has none that can be compared."""
        ...


Arrived = Callable[[int], None]
"""Told how many bytes of a range are there, from its beginning: they are of the version that was asked for and stay as
they are. 0 takes back what was told: the whole object did not match its digest and is asked for again."""


@runtime_checkable
class Streaming(Protocol):
    """A source that tells how far it has come while it reads."""

    def stream_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview, arrived: Arrived) -> None:
        """As ``Source.read_into``; ``arrived`` is told on the way, in the caller's thread, and at last of all bytes."""
        ...


class Source(Protocol):
    """One mount's store. Every method may be called from many threads at once."""

    def list(self, prefix_below_mount: str = "", delimiter: bool = False) -> Iterator[Listing]:
        """Objects in the order of their keys' UTF-8 bytes; with ``delimiter`` the level below the prefix only.

        Keys are full ones, the mount's own prefix included. The prefix is empty or ends with a slash.
        """
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
