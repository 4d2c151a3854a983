"""The data protocol: how a client reads cached ranges from a worker over one TCP or unix-socket stream.

All integers are big-endian. A connection begins with a hello (magic ``FBH1``, token length, token) that the
worker answers with a response frame whose status is 0 or an error code. Requests may be pipelined; responses
come in the order of the requests. One read stays within one chunk, starts at a block's start and ends at a
block's end or the object's::

    request   magic FBR1 | op u8 | flags u8 | body length u16 | id u32 | object size u64 | offset u64 | length u32
              body: dataset, mount, key, version, each as u16 length and UTF-8
    response  magic FBS1 | status u8 | pause u8 | blocks u16 | id u32 | epoch u64 | generation u64 | length u32
              blocks x u32 crc32c, one per 64 KiB block, then `length` payload bytes

A request with the flag ANNOUNCE may be answered twice: by a bare head with the status ``STATUS_FETCHING`` as soon as
the worker knows that it must fetch the chunk first, then by the response itself. So a client can tell a worker that
waits for the store from one that is slow itself.

A response with a status other than 0 carries no blocks; its payload is the sentence for people in UTF-8, and
``pause`` the tenths of a second after which asking again makes sense (0: not told). Every response tells the
worker's ring epoch and index generation, so a client learns of newer ones for nothing.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from forebay_protocol.errors import InvalidRequest
from forebay_protocol.keys import ObjectVersion

HELLO = struct.Struct(">4sI")
REQUEST = struct.Struct(">4sBBHIQQI")
RESPONSE = struct.Struct(">4sBBHIQQI")
_ID_START, _ID_END = 8, 12
"""Where the id is, in requests and in responses."""
_NEWS = struct.Struct(">QQ")
_NEWS_END = _ID_END + _NEWS.size
HELLO_MAGIC = b"FBH1"
REQUEST_MAGIC = b"FBR1"
RESPONSE_MAGIC = b"FBS1"

MAX_TOKEN = 4096
MAX_MESSAGE = 4096
"""Longest token and longest error sentence, in bytes."""

STATUS_OK = 0
STATUS_FETCHING = 255
"""No error: the chunk is being fetched, the response follows."""


class Op(IntEnum):
    """What a request asks for."""

    READ = 1


class Flag(IntFlag):
    """How a read may be answered."""

    NONE = 0
    CACHED_ONLY = 1
    """Answer NotCached rather than fetch the chunk from anywhere."""
    PEER = 2
    """Asked by another worker: fetch from the source if need be, but never from a further worker."""
    INSTEAD = 4
    """The owner is late or fails: have it or fetch it from the source, without asking the owner."""
    ANNOUNCE = 8
    """Say ``STATUS_FETCHING`` when the chunk must be fetched first."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """One range of one object version. ``offset`` and ``length`` are in bytes of the object."""

    id: int
    object: ObjectVersion
    offset: int
    length: int
    flags: Flag = Flag.NONE


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The fixed part of a response; ``status`` 0 is success, else a code of ``errors.BY_CODE``."""

    status: int
    blocks: int
    id: int
    epoch: int
    generation: int
    length: int
    retry_after: float = 0.0
    """Seconds, with an error; 0 where the worker tells none."""


def encode_hello(token: str) -> bytes:
    """The first bytes of a connection."""
    raw = token.encode()
    return HELLO.pack(HELLO_MAGIC, len(raw)) + raw


def encode_request(request: ReadRequest) -> bytes:
    """A request, ready to send."""
    one = request.object
    body = bytearray()
    for part in (one.dataset, one.mount, one.key, one.version):
        raw = part.encode("utf-8", "surrogateescape")
        body += len(raw).to_bytes(2, "big")
        body += raw
    head = REQUEST.pack(
        REQUEST_MAGIC, Op.READ, request.flags, len(body), request.id, one.size, request.offset, request.length
    )
    return head + bytes(body)


def decode_request_head(head: bytes) -> tuple[int, int, int, int, int, int]:
    """Check a request's fixed part: (flags, body length, id, object size, offset, length)."""
    magic, op, flags, body_length, request_id, size, offset, length = REQUEST.unpack(head)
    if magic != REQUEST_MAGIC:
        raise InvalidRequest("not a request of this protocol")
    if op != Op.READ:
        raise InvalidRequest(f"unknown operation {op}")
    return flags, body_length, request_id, size, offset, length


def decode_object(body: bytes, size: int) -> ObjectVersion:
    """The object that a request's body names; InvalidRequest when the body does not parse to its end."""
    parts: list[str] = []
    position = 0
    for _ in range(4):
        start = position + 2
        position = start + int.from_bytes(body[position:start], "big")
        if start > len(body) or position > len(body):
            raise InvalidRequest("a request's body is cut short")
        parts.append(body[start:position].decode("utf-8", "surrogateescape"))
    if position != len(body):
        raise InvalidRequest("a request's body has bytes left over")
    return ObjectVersion(parts[0], parts[1], parts[2], parts[3], size)


def encode_response(head: ResponseHead) -> bytes:
    """A response's fixed part."""
    pause = min(255, round(10 * head.retry_after))
    return RESPONSE.pack(
        RESPONSE_MAGIC, head.status, pause, head.blocks, head.id, head.epoch, head.generation, head.length
    )


def without_id(raw: bytes) -> bytes:
    """What is the same in every repeat of an encoded request."""
    return raw[:_ID_START] + raw[_ID_END:]


def repeat_of_response(response: bytes, request: bytes, epoch: int, generation: int) -> bytes:
    """The beginning of an encoded response, answering another encoded request with what is new."""
    return b"".join((
        response[:_ID_START], request[_ID_START:_ID_END], _NEWS.pack(epoch, generation), response[_NEWS_END:]
    ))  # fmt: skip


def decode_response(raw: bytes) -> ResponseHead:
    """Read a response's fixed part; InvalidRequest when it is none."""
    magic, status, pause, blocks, request_id, epoch, generation, length = RESPONSE.unpack(raw)
    if magic != RESPONSE_MAGIC:
        raise InvalidRequest("not a response of this protocol")
    return ResponseHead(status, blocks, request_id, epoch, generation, length, pause / 10)
