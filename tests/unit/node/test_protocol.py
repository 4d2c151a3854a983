"""The FUSE wire structures: their sizes are the kernel's, and what is packed reads back."""

import stat
import struct

import pytest

from forebay_node.fuse import protocol


def test_sizes_are_the_kernels() -> None:
    """From include/uapi/linux/fuse.h, protocol 7.38."""
    sizes = {
        protocol.IN_HEADER: 40, protocol.OUT_HEADER: 16, protocol.INIT_OUT: 64, protocol.ATTR: 88,
        protocol.ENTRY_OUT: 40, protocol.ATTR_OUT: 16, protocol.OPEN_OUT: 16, protocol.STATFS_OUT: 80,
        protocol.DIRENT: 24, protocol.INVAL_INODE_OUT: 24, protocol.INVAL_ENTRY_OUT: 16,
    }  # fmt: skip

    assert {one.format: one.size for one in sizes} == {one.format: size for one, size in sizes.items()}


def test_a_request_is_split() -> None:
    """Header and body; a length that lies is refused."""
    raw = protocol.IN_HEADER.pack(44, protocol.Opcode.LOOKUP, 7, 1, 10, 20, 30, 0, 0) + b"abc\0"

    request = protocol.parse_request(memoryview(raw))

    assert (request.opcode, request.unique, request.node, request.pid) == (protocol.Opcode.LOOKUP, 7, 1, 30)
    assert bytes(request.body) == b"abc\0"
    with pytest.raises(ValueError, match="came as"):
        protocol.parse_request(memoryview(raw[:-1]))


def test_init_takes_only_what_is_offered() -> None:
    """Flags are the common part; old kernels are refused with a sentence."""
    offered = protocol.InitFlag.ASYNC_READ | protocol.InitFlag.MAX_PAGES | 1 << 16 | 1 << 30
    reply = protocol.init_reply(
        memoryview(struct.pack("<IIIIII", 7, 45, 131072, offered, 0, 0)), readahead=1 << 20, max_pages=256
    )

    major, minor, readahead, flags, *_ = protocol.INIT_OUT.unpack(reply)
    assert (major, minor, readahead) == (7, 38, 1 << 20)
    assert flags == protocol.InitFlag.ASYNC_READ | protocol.InitFlag.MAX_PAGES
    with pytest.raises(ValueError, match=r"7\.26"):
        protocol.init_reply(memoryview(struct.pack("<IIII", 7, 26, 0, 0)), readahead=0, max_pages=1)


def test_replies_carry_their_length() -> None:
    """Success and error headers, entries and notifications."""
    attributes = protocol.Attributes(9, stat.S_IFREG | 0o444, 1000, 1_500_000_001_000_000_007, 5, 6)

    assert protocol.OUT_HEADER.unpack(protocol.reply_header(3, 10)) == (26, 0, 3)
    assert protocol.OUT_HEADER.unpack(protocol.reply_error(3, 2)) == (16, -2, 3)
    assert protocol.ATTR.unpack(attributes.pack())[:9] == (9, 1000, 2, *[1_500_000_001] * 3, *[7] * 3)
    assert len(protocol.entry_reply(attributes, 1)) == len(protocol.negative_entry_reply(1)) == 128
    for message in (protocol.inval_entry(1, b"name"), protocol.inval_inode(5, attributes_only=False)):
        assert struct.unpack_from("<I", message)[0] == len(message)
    assert len(protocol.dirent(1, 2, b"123", 8)) % 8 == 0
