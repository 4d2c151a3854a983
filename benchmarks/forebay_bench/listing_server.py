"""A synthetic S3 listing of any size: pages are made before the first request, so that serving them costs little."""

import hashlib
import os
import signal
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from typing_extensions import override

PAGE = 1000
PER_FOLDER = 1000
_HEAD = '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
_DAY = 86_400


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pages: "list[bytes]" = []  # noqa: RUF012 - set once before the server runs

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        # With a delimiter there would be thousands of prefixes: the client goes back to the plain listing.
        number = int(query.get("continuation-token", ["0"])[0])
        body = self.pages[number]
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def _page(number: int, last: int) -> bytes:
    more = number < last
    token = f"<NextContinuationToken>{number + 1}</NextContinuationToken>" if more else ""
    entries = "".join(_entry(index) for index in range(number * PAGE, (number + 1) * PAGE))
    return f"{_HEAD}<IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>".encode()


def _entry(index: int) -> str:
    # Sizes, times and versions as they are in life: each object its own.
    digest = hashlib.md5(index.to_bytes(8, "big"), usedforsecurity=False).hexdigest()
    second = int(digest[:8], 16) % _DAY
    time = f"2026-01-{index // 50_000 % 28 + 1:02}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.000Z"
    size = 10_000 + int(digest[8:14], 16) % 200_000
    key = f"train/{index // PER_FOLDER:05}/sample-{index:08}.jpg"
    return (
        f"<Contents><Key>{key}</Key><LastModified>{time}</LastModified><ETag>&quot;{digest}&quot;</ETag>"
        f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


@contextmanager
def serving(count: int) -> Iterator[str]:
    """A bucket of so many objects (a multiple of ``PAGE``) from a process of its own; its URL."""
    last = count // PAGE - 1
    _Handler.pages = [_page(number, last) for number in range(last + 1)]
    server = _Server(("127.0.0.1", 0), _Handler)
    child = os.fork()
    if not child:
        try:
            server.serve_forever()
        finally:
            os._exit(0)
    _Handler.pages = []
    address, port = server.server_address[:2]
    server.server_close()
    try:
        yield f"http://{address!s}:{port}"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
