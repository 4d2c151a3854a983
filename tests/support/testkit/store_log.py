"""Receive MinIO's audit records and keep of each what tests ask about, one JSON line per request.

Runs beside the server, in its network namespace: `python store_log.py PORT FILE`. Imports nothing of ours, so that it
starts with any path.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def condense(record: dict[str, Any]) -> dict[str, Any]:
    """The fields that are kept; signatures and other headers are not."""
    api = record.get("api", {})
    header = {name.lower(): value for name, value in (record.get("requestHeader") or {}).items()}
    return {
        "time": record.get("time", ""),
        "operation": api.get("name", ""),
        "bucket": api.get("bucket", ""),
        "key": api.get("object", ""),
        "query": record.get("requestQuery") or {},
        "range": header.get("range", ""),
        "if_match": header.get("if-match", ""),
        "status": api.get("statusCode", 0),
        "bytes_received": max(0, api.get("rx", 0)),
        "bytes_sent": max(0, api.get("tx", 0)),
        "client": record.get("remotehost", ""),
        "user_agent": record.get("userAgent", ""),
        "access_key": record.get("accessKey", ""),
    }


class Receiver(BaseHTTPRequestHandler):
    """Appends each record to the file before it answers, so that MinIO sends the next one after it is kept."""

    protocol_version = "HTTP/1.1"
    file: Path
    guard = threading.Lock()

    def do_POST(self) -> None:
        """Take one record, or several."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        decoder = json.JSONDecoder()
        lines, text = [], body.decode("utf-8", "replace").strip()
        while text:
            record, end = decoder.raw_decode(text)
            lines.append(json.dumps(condense(record), ensure_ascii=False))
            text = text[end:].strip()
        if lines:
            with self.guard, self.file.open("a", encoding="utf-8", errors="surrogatepass") as log:
                log.write("\n".join(lines) + "\n")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    # typing.override comes with Python 3.12 only.
    def log_message(self, format: str, *args: object) -> None:  # type: ignore[explicit-override]  # noqa: A002
        """Say nothing per request."""


def main(arguments: list[str]) -> None:
    """Serve for ever."""
    port, file = arguments
    Receiver.file = Path(file)
    ThreadingHTTPServer(("127.0.0.1", int(port)), Receiver).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
