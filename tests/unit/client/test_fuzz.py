"""Files and addresses from outside: a value or the declared error, in bounded memory."""

import http.server
import threading
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typing_extensions import override

from forebay.control import ControlClient
from forebay.index import Snapshot
from forebay.index.writer import Origin, SnapshotWriter
from forebay.source import parse_source
from forebay.source.base import Listing
from forebay_protocol import control
from forebay_protocol.dataset import MountSpec
from forebay_protocol.errors import ForebayError, InvalidRequest
from testkit.damage import damaged

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real index of 200 files."""
    path = tmp_path_factory.mktemp("index") / "index"
    mount = MountSpec(name="m", source="s3://bucket/p", path="/")
    writer = SnapshotWriter(path, Origin(dataset_uid="u", generation=1, built_at=1.0, mounts=(mount,)))
    for number in range(200):
        writer.add("m", Listing(f"p/{number % 7}/{number:03}", number, "v", 1))
    writer.finish()
    return path.read_bytes()


def _use(path: Path) -> None:
    """Everything that a mount or a worker does with an index."""
    snapshot = Snapshot.open(path)
    try:
        for _, entry in snapshot.files():
            snapshot.shows(snapshot.object(entry))
        for entry in snapshot.children(1):
            snapshot.lookup(1, entry.name)
            snapshot.entry(entry.inode)
        snapshot.find("/1/001")
    finally:
        snapshot.close()


@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_indexes(tmp_path: Path, good: bytes, data: st.DataObject) -> None:
    """Garbage, cut short, or with some bytes overwritten anywhere: what is read is read, the rest is InvalidRequest."""
    path = tmp_path / "index"
    path.write_bytes(data.draw(damaged(good)))

    try:
        _use(path)
    except InvalidRequest:
        return


BOMB = zlib.compress(bytes(128 * MIB), 1)


class _Bomb(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BOMB)))
        self.send_header(control.GENERATION_HEADER, "1")
        self.end_headers()
        self.wfile.write(BOMB)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_an_index_that_unpacks_to_a_hundred_times_its_size(tmp_path: Path) -> None:
    """The file grows, this process does not."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Bomb) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = ControlClient("127.0.0.1", server.server_address[1], lambda: "t", timeout=30.0)
        tracemalloc.start()
        try:
            assert client.fetch_index(0, tmp_path / "index") == 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            server.shutdown()

    assert (tmp_path / "index").stat().st_size == 128 * MIB
    assert peak < 16 * MIB


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_source_addresses(text: str) -> None:
    """Parts that are not empty, or a ForebayError."""
    try:
        found = parse_source(text)
    except ForebayError:
        return
    assert found.scheme
    assert found.container
