"""Requests on the FUSE device: whatever comes, it is answered, and once."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from forebay.index import Snapshot
from forebay.index.writer import Origin, SnapshotWriter
from forebay.source.base import Listing
from forebay_node.fuse import protocol
from forebay_node.fuse.__main__ import parse_endpoint
from forebay_node.fuse.files import Files
from forebay_node.fuse.filesystem import FileSystem
from forebay_node.fuse.journal import Journal
from forebay_node.fuse.session import Reply, guard
from forebay_node.fuse.tree import Tree
from forebay_protocol.dataset import DatasetDocument, MountSpec
from forebay_protocol.keys import ObjectVersion, Span

MOUNT = MountSpec(name="m", source="s3://bucket", path="/")
DOCUMENT = DatasetDocument(uid="u", namespace="n", name="d", mounts=(MOUNT,))


class _Zeros:
    """A reader whose objects are all zeros."""

    def read_into(self, one: ObjectVersion, span: Span, buffer: memoryview) -> None:
        """Leave the buffer as it is."""

    def read(self, one: ObjectVersion, offset: int, length: int) -> bytes:
        """Zeros."""
        return bytes(max(0, min(length, one.size - offset)))


@pytest.fixture(scope="module")
def filesystem(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FileSystem, list[int]]]:
    """A file system of a few files, and the nodes that it has."""
    path = tmp_path_factory.mktemp("index") / "index"
    writer = SnapshotWriter(path, Origin(dataset_uid="u", generation=1, built_at=1.0, mounts=(MOUNT,)))
    keys = sorted((f"folder{number % 3}/{number}", number) for number in range(20))
    writer.add("m", [Listing(key, number * 1000, "v", 1) for key, number in keys])
    writer.finish()
    snapshot = Snapshot.open(path)
    nodes = [1, *(entry.inode for entry in snapshot.children(1)), *(entry.inode for _, entry in snapshot.files())]
    journal = Journal(path.with_name("journal"))
    tree = Tree(snapshot, DOCUMENT, journal)
    files = Files(_Zeros(), 1 << 20, journal)  # type: ignore[arg-type]
    yield FileSystem(tree, files, journal), nodes
    files.close()
    tree.close()
    journal.close()


@given(raw=st.binary(max_size=200) | st.builds(
    lambda body, rest: (len(body) + 40).to_bytes(4, "little") + rest + body, st.binary(max_size=99),
    st.binary(min_size=36, max_size=36),
))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_headers(raw: bytes) -> None:
    """A request or ValueError."""
    try:
        request = protocol.parse_request(memoryview(raw))
    except ValueError:
        return
    assert len(request.body) == len(raw) - protocol.IN_HEADER.size


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_every_request_is_answered_once(filesystem: tuple[FileSystem, list[int]], data: st.DataObject) -> None:
    """Any operation, known or not, on any node and handle, with any body."""
    served, nodes = filesystem
    numbers = st.integers(0, 2**64 - 1) | st.integers(0, 4)
    sizes = st.integers(0, 1 << 20)
    request = protocol.Request(
        opcode=data.draw(st.sampled_from([*protocol.Opcode]) | st.integers(0, 5000)),
        unique=9,
        node=data.draw(st.sampled_from(nodes) | numbers),
        uid=0,
        gid=0,
        pid=1,
        body=memoryview(
            data.draw(
                st.binary(max_size=64)
                | st.builds(protocol.READ_IN.pack, numbers, numbers, sizes, sizes)
                | st.sampled_from([b"0\0", b"folder0\0", b"..\0", b"\xff\xfe\0", b"\0\0", b"a" * 5000 + b"\0"])
            )
        ),
    )
    with Path("/dev/null").open("wb") as device:
        waiting: dict[int, Reply] = {}
        answered = threading.Event()
        reply = _Watched(device.fileno(), request.unique, waiting, answered)

        guard(reply, partial(served.handle, request, reply))

        assert answered.wait(20)
        assert waiting == {}


class _Watched(Reply):
    """A reply that tells when it is sent."""

    __slots__ = ("_answered",)

    def __init__(self, device: int, unique: int, waiting: dict[int, Reply], answered: threading.Event) -> None:
        super().__init__(device, unique, waiting)
        self._answered = answered

    @override
    def _send(self, parts: Sequence[bytes | memoryview]) -> None:
        super()._send(parts)
        self._answered.set()


@given(text=st.text())
@settings(max_examples=200, deadline=None)
def test_endpoints(text: str) -> None:
    """A host and a port, or ValueError."""
    with suppress(ValueError):
        parse_endpoint(text)
