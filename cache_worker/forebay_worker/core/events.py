"""What happens to the cache."""

from dataclasses import dataclass

from forebay_protocol.keys import ChunkKey


@dataclass(frozen=True, slots=True)
class Found:
    """At start-up the catalogue of a tier lists this chunk. Call them in the order of their last use."""

    key: ChunkKey
    tier: int
    length: int
    sums: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Somebody has, or is about to have, the bytes of a chunk and asks where to put them."""

    key: ChunkKey
    length: int


@dataclass(frozen=True, slots=True)
class Written:
    """The chunk's bytes and their checksums are in the tier that ``Write`` named."""

    key: ChunkKey
    sums: bytes


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """They are not; the room is free again."""

    key: ChunkKey


@dataclass(frozen=True, slots=True)
class Removed:
    """The instruction ``Remove`` has been carried out."""

    key: ChunkKey
    tier: int


@dataclass(frozen=True, slots=True)
class Verified:
    """All checksums of the chunk matched."""

    key: ChunkKey


@dataclass(frozen=True, slots=True)
class Damaged:
    """The chunk's bytes are gone or do not match; it must never be served again."""

    key: ChunkKey


@dataclass(frozen=True, slots=True)
class Released:
    """A reader that had the chunk's bytes in this tier is done with them."""

    key: ChunkKey
    tier: int


@dataclass(frozen=True, slots=True)
class Judged:
    """Whether the newest generation shows the chunk's object, and whether this worker owns it in the ring."""

    key: ChunkKey
    current: bool
    owned: bool
    spare: bool


@dataclass(frozen=True, slots=True)
class Resized:
    """A tier has this capacity now; 0 takes it out of use for new chunks."""

    tier: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A tier is gone with all that it holds; removals in it need no work any more."""

    tier: int


@dataclass(frozen=True, slots=True)
class Idle:
    """The disks have time for a chunk to move between tiers."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The chunk's bytes are in the tier that ``Move`` named, too, and match its checksums."""

    key: ChunkKey


@dataclass(frozen=True, slots=True)
class MoveFailed:
    """They are not."""

    key: ChunkKey


@dataclass(frozen=True, slots=True)
class Leased:
    """Somebody wants to hold an object's file open. ``chunks`` is how many the object has."""

    lease: str
    tier: int
    object_id: str
    chunks: int


@dataclass(frozen=True, slots=True)
class FoundUnlinked:
    """At start-up a tier knows of a file without a name that these leases may still hold open."""

    leases: tuple[str, ...]
    tier: int
    object_id: str
    room: int


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """It was given back, or nobody renewed it."""

    lease: str


@dataclass(frozen=True, slots=True)
class Unlinked:
    """The instruction ``Unlink`` has been carried out."""

    tier: int
    object_id: str


ChunkEvent = Written | WriteFailed | Removed | Verified | Damaged | Released | Judged | Moved | MoveFailed
Event = ChunkEvent | Found | Wanted | Resized | Lost | Idle | Leased | FoundUnlinked | LeaseEnded | Unlinked
