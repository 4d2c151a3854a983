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
    """Free the chunk's room; nobody reads it any more. Answer with Removed."""

    key: ChunkKey
    tier: int
    length: int


Instruction = Write | ReadThrough | Wait | Remove
