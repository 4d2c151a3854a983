"""What the shell is to do."""

from dataclasses import dataclass

from forebay_protocol.keys import ChunkKey


@dataclass(frozen=True, slots=True)
class Write:
    """Put the chunk into this tier; room is reserved. Answer with Written or WriteFailed."""

    key: ChunkKey
    tier: int


@dataclass(frozen=True, slots=True)
class ReadThrough:
    """Keep nothing: there is no room, or the chunk is already here or on its way."""

    key: ChunkKey


@dataclass(frozen=True, slots=True)
class Wait:
    """Others are making room: ask again after the next Removed."""

    key: ChunkKey


@dataclass(frozen=True, slots=True)
class Remove:
    """Free the room that the chunk has in this tier; nobody reads it there any more. Answer with Removed."""

    key: ChunkKey
    tier: int
    length: int


@dataclass(frozen=True, slots=True)
class Move:
    """Copy a chunk from one tier to another; readers use the old copy until you answer Moved or MoveFailed."""

    key: ChunkKey
    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Unlink:
    """Take the name from an object's file, which leases hold open, and forget its chunks. Answer with Unlinked."""

    tier: int
    object_id: str
    keys: tuple[ChunkKey, ...]
    room: int


@dataclass(frozen=True, slots=True)
class Granted:
    """The lease holds."""

    lease: str


Instruction = Write | ReadThrough | Wait | Remove | Move | Unlink | Granted
