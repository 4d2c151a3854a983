"""The checksums of a chunk: crc32c of every 64 KiB block, as the wire carries them."""

import struct

import google_crc32c

from forebay_protocol.keys import BLOCK_SIZE, block_count


def block_sums(data: memoryview) -> bytes:
    """The checksums of all blocks, 4 bytes each, big-endian."""
    sums = (google_crc32c.value(bytes(data[start : start + BLOCK_SIZE])) for start in range(0, len(data), BLOCK_SIZE))
    return struct.pack(f">{block_count(len(data))}I", *sums)


def sums_of(sums: bytes, offset: int, length: int) -> bytes:
    """The checksums of the blocks of a block-aligned range within a chunk."""
    first = offset // BLOCK_SIZE
    return sums[4 * first : 4 * (first + block_count(length))]
