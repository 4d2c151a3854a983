"""What is known of one chunk, and the room of one tier."""

from dataclasses import dataclass
from enum import Enum, auto

from forebay_protocol.keys import ChunkKey


class Phase(Enum):
    """Where a chunk is in its life."""

    RESERVED = auto()
    PRESENT = auto()
    LEAVING = auto()


@dataclass(slots=True)
class Chunk:
    """What is known of one chunk. ``sums`` are its blocks' checksums as the wire carries them.

    ``tier`` is where its bytes are read; ``moving_to`` is where they are being copied to. Two are in bytes that readers
    read: ``last_read`` says when that was, ``interval`` how much is read between two reads of the chunk (0: not known).
    """

    key: ChunkKey
    tier: int
    length: int
    phase: Phase
    sums: bytes = b""
    verified: bool = False
    current: bool = True
    owned: bool = True
    pins: int = 0
    damaged: bool = False
    moving_to: int | None = None
    last_read: int = 0
    interval: int = 0

    @property
    def counted(self) -> bool:
        """Whether it belongs to the worker's share of the current generation, and is known to be right."""
        return self.phase is Phase.PRESENT and self.verified and self.current and self.owned

    @property
    def quiet(self) -> bool:
        """Whether nobody reads or moves it."""
        return self.phase is Phase.PRESENT and not self.pins and self.moving_to is None


@dataclass(slots=True)
class Tier:
    """Room of one folder in bytes; ``high`` and ``low`` are shares of the capacity.

    Tiers of the same ``level`` are folders of equal speed, 0 is the fastest. Chunks take whole blocks of ``block``
    bytes, as they do on disk: many small ones need more than they hold.
    """

    capacity: int
    high: float
    low: float
    block: int = 1
    level: int = 0
    used: int = 0

    def room_of(self, length: int) -> int:
        """What a chunk of that length takes."""
        return -(-length // self.block) * self.block

    def ceiling(self, *, keeping: bool) -> float:
        """Bytes that chunks may take before others have to go.

        That is the high watermark; while chunks go one by one rather than many at once, half of what is above it, too.
        """
        return self.capacity * ((self.high + 1) / 2 if keeping else self.high)

    def has_room(self, length: int, *, keeping: bool = False) -> bool:
        """Whether the chunk fits below the ceiling."""
        return self.used + self.room_of(length) <= self.ceiling(keeping=keeping)

    def takes(self, length: int) -> bool:
        """Whether the chunk fits at all, for as long as another one moves away."""
        return self.used + self.room_of(length) <= self.capacity
