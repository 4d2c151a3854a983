"""The kernel's FUSE protocol: numbers, structures, and how answers are laid out in bytes.

The names are those of the kernel's ``include/uapi/linux/fuse.h``. No I/O here.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple

KERNEL_MAJOR = 7
KERNEL_MINOR = 38
"""The protocol version that these structures are from; kernels with a higher one talk down to it."""

ROOT = 1


class Opcode(IntEnum):
    """The requests that this server knows; all others are answered with ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45


UNANSWERED = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})
"""Messages of the kernel that get no answer."""


class InitFlag(IntFlag):
    """What kernel and server agree on at INIT."""

    ASYNC_READ = 1 << 0
    DO_READDIRPLUS = 1 << 13
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    EXPLICIT_INVAL_DATA = 1 << 25
    INIT_EXT = 1 << 30


WANTED = (
    InitFlag.ASYNC_READ
    | InitFlag.DO_READDIRPLUS
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.EXPLICIT_INVAL_DATA
)


class OpenFlag(IntFlag):
    """How the kernel may cache what it opened."""

    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3


class Notify(IntEnum):
    """Messages that the server sends unasked."""

    INVAL_INODE = 2
    INVAL_ENTRY = 3
    RESEND = 7


IN_HEADER = struct.Struct("<IIQQIIIHH")
OUT_HEADER = struct.Struct("<IiQ")
INIT_IN = struct.Struct("<IIII")
INIT_OUT = struct.Struct("<IIIIHHIIHHII24x")
ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY_OUT = struct.Struct("<QQQQII")
ATTR_OUT = struct.Struct("<QII")
OPEN_IN = struct.Struct("<II")
OPEN_OUT = struct.Struct("<QIi")
READ_IN = struct.Struct("<QQII")
RELEASE_IN = struct.Struct("<Q")
STATFS_OUT = struct.Struct("<QQQQQIIII24x")
GETXATTR_IN = struct.Struct("<I")
DIRENT = struct.Struct("<QQII")
INVAL_INODE_OUT = struct.Struct("<Qqq")
INVAL_ENTRY_OUT = struct.Struct("<QII")

MAX_BACKGROUND = 64
MAX_WRITE = 4096
REQUEST_BUFFER = 128 * 1024
"""Room for any request: names and forgets; nothing is ever written through this mount."""

CLONE = 0x8004E500
"""The ioctl that binds a fresh /dev/fuse descriptor to the connection of another: _IOR(229, 0, uint32_t)."""


UNIQUE_RESEND = 1 << 63
"""Set in the number of a request that is sent again; the answer carries it too."""


class Request(NamedTuple):
    """One request of the kernel; ``body`` is what follows the header."""

    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int
    body: memoryview

    @property
    def is_resent(self) -> bool:
        """Whether another server took it before and did not answer."""
        return bool(self.unique & UNIQUE_RESEND)


def parse_request(raw: memoryview) -> Request:
    """Split a request as read from the device; ValueError when its length is not what it says."""
    if len(raw) < IN_HEADER.size:
        raise ValueError(f"a request of {len(raw)} bytes is shorter than its header")
    length, opcode, unique, node, uid, gid, pid, _extension, _padding = IN_HEADER.unpack_from(raw)
    if length != len(raw):
        raise ValueError(f"a request of {length} bytes came as {len(raw)}")
    return Request(opcode, unique, node, uid, gid, pid, raw[IN_HEADER.size :])


def reply_header(unique: int, payload_length: int) -> bytes:
    """The header of a successful answer."""
    return OUT_HEADER.pack(OUT_HEADER.size + payload_length, 0, unique)


def reply_error(unique: int, errno: int) -> bytes:
    """An answer that is an error."""
    return OUT_HEADER.pack(OUT_HEADER.size, -errno, unique)


def init_reply(body: memoryview, *, readahead: int, max_pages: int) -> bytes:
    """Agree with the kernel: of its offers take what this server wants. ValueError for a kernel before 7.31.

    7.31 is Linux 5.4; everything asked for here is older.
    """
    if len(body) < INIT_IN.size:
        raise ValueError(f"an INIT of {len(body)} bytes")
    major, minor, _offered_readahead, offered = INIT_IN.unpack_from(body)
    if major != KERNEL_MAJOR or minor < 31:
        raise ValueError(f"the kernel speaks FUSE {major}.{minor}; 7.31 or newer is needed")
    flags = WANTED & InitFlag(offered & sum(InitFlag))
    return INIT_OUT.pack(
        KERNEL_MAJOR, KERNEL_MINOR, readahead, flags, MAX_BACKGROUND, MAX_BACKGROUND * 3 // 4, MAX_WRITE, 1,
        max_pages, 0, 0, 0,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat shows of a file or folder."""

    inode: int
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    links: int = 1

    def pack(self) -> bytes:
        """The structure fuse_attr."""
        seconds, nanoseconds = divmod(max(self.mtime_ns, 0), 1_000_000_000)
        return ATTR.pack(
            self.inode, self.size, -(-self.size // 512), seconds, seconds, seconds,
            nanoseconds, nanoseconds, nanoseconds, self.mode, self.links, self.uid, self.gid, 0, 4096, 0,
        )  # fmt: skip


def entry_reply(attributes: Attributes, valid: int) -> bytes:
    """The structure fuse_entry_out: a name leads to this node; the kernel may rely on it for ``valid`` seconds."""
    return ENTRY_OUT.pack(attributes.inode, 0, valid, valid, 0, 0) + attributes.pack()


def negative_entry_reply(valid: int) -> bytes:
    """The structure fuse_entry_out that says for ``valid`` seconds: there is no such name."""
    return ENTRY_OUT.pack(0, 0, valid, 0, 0, 0) + bytes(ATTR.size)


def attr_reply(attributes: Attributes, valid: int) -> bytes:
    """The structure fuse_attr_out."""
    return ATTR_OUT.pack(valid, 0, 0) + attributes.pack()


def dirent(inode: int, cookie: int, name: bytes, kind: int) -> bytes:
    """A fuse_dirent with name and padding; ``kind`` is a DT_ value, ``cookie`` where the next one is."""
    return DIRENT.pack(inode, cookie, len(name), kind) + name + bytes(-len(name) % 8)


def statfs_reply(total_bytes: int, files: int) -> bytes:
    """The structure fuse_statfs_out of a full, read-only file system."""
    return STATFS_OUT.pack(-(-total_bytes // 4096), 0, 0, files, 0, 4096, 255, 4096, 0)


def inval_inode(node: int, *, attributes_only: bool) -> bytes:
    """Tell the kernel to forget a node's attributes, and its cached pages or entries unless told otherwise."""
    payload = INVAL_INODE_OUT.pack(node, -1 if attributes_only else 0, 0)
    return OUT_HEADER.pack(OUT_HEADER.size + len(payload), Notify.INVAL_INODE, 0) + payload


def resend() -> bytes:
    """Ask for all requests that were taken and not answered once more (Linux 6.9; EINVAL before)."""
    return OUT_HEADER.pack(OUT_HEADER.size, Notify.RESEND, 0)


def inval_entry(parent: int, name: bytes) -> bytes:
    """Tell the kernel to forget what a name leads to, also that it leads nowhere."""
    payload = INVAL_ENTRY_OUT.pack(parent, len(name), 0) + name + b"\0"
    return OUT_HEADER.pack(OUT_HEADER.size + len(payload), Notify.INVAL_ENTRY, 0) + payload
