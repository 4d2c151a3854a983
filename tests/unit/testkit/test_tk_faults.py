"""The fault proxies: every fault arrives as what it is called, and the same seed gives the same faults."""

import contextlib
import http.client
import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from typing_extensions import override

from forebay.connection import Timeouts, WorkerConnection
from forebay_protocol.errors import ForebayError
from forebay_protocol.wire import ReadRequest
from testkit.fake_worker import FakeWorker, version_of
from testkit.store_faults import Journal, SeededStoreFaults, StoreFault
from testkit.store_proxy import StoreProxy
from testkit.wire_proxy import WireFault, WireProxy

_WHOLE = bytes(range(256)) * 40
_FIRST, _LAST = 1000, 1999


class _Store(http.server.BaseHTTPRequestHandler):
    """Answers every range GET rightly."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        first, last = (int(part) for part in self.headers["Range"].removeprefix("bytes=").split("-"))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(_WHOLE)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(_WHOLE[first : last + 1])

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A small store; its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Store) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _get(proxy: StoreProxy, path: str = "/b/k", first: int = _FIRST, last: int = _LAST) -> tuple[object, ...]:
    """What a reader sees: status, ETag, Content-Range, body; or the error's name, or silence."""
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=0.5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path, headers={"Range": f"bytes={first}-{last}"})
            answer = connection.getresponse()
            end, body = time.monotonic() + 0.5, b""
            while piece := answer.read1():
                body += piece
                if time.monotonic() > end:
                    raise TimeoutError
            return answer.status, answer.headers["ETag"], answer.headers["Content-Range"], body
        except (OSError, http.client.HTTPException) as error:
            return (type(error).__name__,)


@pytest.mark.parametrize("kind", list(StoreFault))
def test_every_fault_of_a_store_shows(store: str, kind: StoreFault) -> None:
    """No answer under a fault is the honest one, and the journal names kind, object and range."""
    honest = (206, '"1"', f"bytes {_FIRST}-{_LAST}/{len(_WHOLE)}", _WHOLE[_FIRST : _LAST + 1])
    faults = SeededStoreFaults(1, 1.0, lambda _: _WHOLE, {kind: 1.0})
    with StoreProxy(store) as proxy:
        assert _get(proxy) == honest
        proxy.break_answers(faults)

        seen = _get(proxy)

    assert [tuple(line) for line in faults.journal.lines()] == [(kind, "/b/k", f"bytes={_FIRST}-{_LAST}")]
    assert seen != honest
    if kind in {StoreFault.STALL, StoreFault.DRIP}:
        assert seen == ("TimeoutError",)
    if kind is StoreFault.RESET:
        assert seen == ("ConnectionResetError",)
    if kind in {StoreFault.SHIFTED_RANGE, StoreFault.SHORT_RANGE}:
        assert seen[0] == 206
        assert seen[2] != honest[2]


def test_the_same_seed_breaks_the_same_answers(store: str) -> None:
    """Whatever the order in which they come; another seed breaks others."""

    def run(seed: int, paths: list[str]) -> set[object]:
        weights = {StoreFault.MISSING: 1.0, StoreFault.FLIPPED_BIT: 1.0}
        faults = SeededStoreFaults(seed, 0.5, lambda _: _WHOLE, weights)
        with StoreProxy(store) as proxy:
            proxy.break_answers(faults)
            for path in paths:
                _get(proxy, path)
        assert faults.journal.answers() == len(paths)
        return set(faults.journal.lines())

    paths = [f"/b/{number}" for number in range(20)]
    first = run(1, paths)

    assert 0 < len(first) < len(paths)
    assert run(1, paths[::-1]) == first
    assert run(2, paths) != first


def test_the_wire_proxy_never_makes_bytes_that_pass() -> None:
    """Each fault of the data protocol is an error for the reader, or harmless; each kind is injected."""
    data = bytes(range(256)) * 1000
    one = version_of("k", data)
    journal = Journal()
    right = 0
    with FakeWorker() as worker, WireProxy(worker.member, 3, journal) as proxy:
        worker.objects["k"] = data
        proxy.share = 0.8
        for _ in range(60):
            buffer = bytearray(len(data))
            with contextlib.suppress(ForebayError):
                connection = WorkerConnection("127.0.0.1", proxy.member.data_port, lambda: "t", Timeouts(answer=0.1))
                with contextlib.closing(connection):
                    connection.read_into(ReadRequest(0, one, 0, len(data)), memoryview(buffer))
                assert buffer == data
                right += 1

    assert {line.kind for line in journal.lines()} == {str(kind) for kind in WireFault}
    assert 60 - len(journal) <= right < 60


def test_a_proxy_whose_worker_is_gone_ends_the_connection() -> None:
    """As the worker itself would."""
    with FakeWorker() as worker, WireProxy(worker.member, 1, Journal()) as proxy:
        worker.close()
        with socket.create_connection(("127.0.0.1", proxy.member.data_port), timeout=5) as stream:
            assert stream.recv(1) == b""
