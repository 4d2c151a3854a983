"""How an index file crosses the wire: cut into frames, each compressed where that makes it smaller.

A frame is its size, its size as sent (equal where it is not compressed), and its bytes; an empty frame is the end.
Frames are small, so that a few bytes from outside never become many in memory.
"""

import struct
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from forebay_protocol.errors import InvalidRequest

MAGIC = b"forebay index 2\n"
FRAME = 1024 * 1024
"""The most bytes of a frame."""

LARGEST = 64 * 1024**3
"""The largest index that is unpacked, in bytes: of about a thousand million objects."""

_HEAD = struct.Struct("<II")
_LEVEL = 1
_WAITING = 32
_SAMPLE = 4096
_WORTH = 0.95


def _packed(frame: bytes) -> bytes:
    # Digests cannot be compressed: a sample says so in a hundredth of the time.
    sample = frame[:_SAMPLE]
    if len(zlib.compress(sample, 1)) > _WORTH * len(sample):
        return frame
    packed = zlib.compress(frame, _LEVEL)
    return packed if len(packed) < len(frame) else frame


class Packer:
    """Packs what is written in a thread of its own; ``finish`` or ``abandon`` ends it."""

    def __init__(self, path: Path) -> None:
        """Begin a packed file at ``path``."""
        self._path = path
        self._file = path.open("wb")
        self._file.write(MAGIC)
        self._thread = ThreadPoolExecutor(1, "pack")
        self._waiting: deque[Future[None]] = deque()

    def write(self, piece: bytes) -> None:
        """The next bytes of the index; waits where packing does not keep up. OSError when it cannot be written."""
        for start in range(0, len(piece), FRAME):
            if len(self._waiting) >= _WAITING:
                self._waiting.popleft().result()
            self._waiting.append(self._thread.submit(self._write, piece[start : start + FRAME]))

    def _write(self, frame: bytes) -> None:
        packed = _packed(frame)
        self._file.write(_HEAD.pack(len(frame), len(packed)) + packed)

    def finish(self) -> None:
        """Complete the file."""
        while self._waiting:
            self._waiting.popleft().result()
        self._thread.shutdown()
        with self._file:
            self._file.write(_HEAD.pack(0, 0))

    def abandon(self) -> None:
        """Close and remove the file."""
        self._thread.shutdown(cancel_futures=True)
        self._file.close()
        self._path.unlink(missing_ok=True)


def unpack(packed: Path, plain: Path) -> None:
    """Write the index that a packed file holds; InvalidRequest when it is none, or only the beginning of one."""
    # Whoever has an older index of that name mapped keeps it.
    plain.unlink(missing_ok=True)
    with packed.open("rb") as source, plain.open("wb") as destination:
        if source.read(len(MAGIC)) != MAGIC:
            raise InvalidRequest("not a packed index of this program's format; run the same version everywhere")
        written = 0
        while frame := _frame(source):
            written += destination.write(frame)
            if written > LARGEST:
                raise InvalidRequest(f"the packed index holds more than {LARGEST} bytes")


def _frame(source: BinaryIO) -> bytes:
    """The next frame; empty at the end."""
    try:
        size, packed_size = _HEAD.unpack(source.read(_HEAD.size))
        if not packed_size <= size <= FRAME:
            raise InvalidRequest("the packed index is damaged: a frame is too large")
        packed = source.read(packed_size)
        if len(packed) < packed_size:
            raise InvalidRequest("the packed index ends early")
        if packed_size == size:
            return packed
        inflate = zlib.decompressobj()
        frame = inflate.decompress(packed, size)
        # The end of a stream may still be in what a full buffer left over.
        rest = inflate.decompress(inflate.unconsumed_tail, 1)
        if len(frame) != size or rest or not inflate.eof:
            raise InvalidRequest("the packed index is damaged: a frame is not of its size")
    except (struct.error, zlib.error) as error:
        raise InvalidRequest(f"the packed index is damaged: {error}") from error
    return frame
