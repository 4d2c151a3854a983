"""Keep the S3 server's own record of every request: one JSON line each, in the order in which they ended.

MinIO publishes a record after each request (`mc admin trace` shows them), also when the client went away in the
middle; its audit log loses about half of those. Runs as a daemon beside the server:
`python -m testkit.store_log PORT FILE`, with the owner's keys in the environment.
"""

import http.client
import json
import os
import re
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from testkit.s3client import Credentials, signed_headers

ACCESS_KEY = "FOREBAY_STORE_ACCESS_KEY"
SECRET_KEY = "FOREBAY_STORE_SECRET_KEY"
MARKS = "forebay-testkit-marks"
"""A bucket that does not exist: requests to it mark places in the record."""
ATTACHED = "attached"
"""The line that says: from here on every request is recorded."""
_TRACE = "/minio/admin/v3/trace"
_QUERY = "internal=true&s3=true"
_UNRESERVED = "/-_.~$&+,:;=@"
"""What Go's own encoding of a path leaves as it is, besides letters and digits."""
_ENCODED = re.compile(r"(?:[A-Za-z0-9\-_.~/!$&'()*+,;=:@\[\]]|%[0-9A-Fa-f]{2})*")


def decode_path(path: str) -> str:
    """The path as the server understood it.

    The record has it decoded, except where the client encoded other characters than Go does: then it is as sent. Only
    a key that itself reads like such an encoding (`a%2Bb`) cannot be told from one (`a+b`).
    """
    if "%" in path and _ENCODED.fullmatch(path):
        decoded = unquote(path)
        if quote(decoded, safe=_UNRESERVED) != path:
            return decoded
    return path


def condense(record: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a record; signatures and other headers are not."""
    call = record["http"]
    request, response, counts = call["request"], call["response"], call["stats"]
    headers = {name.lower(): values[0] for name, values in (request.get("headers") or {}).items() if values}
    bucket, _, key = decode_path(request.get("path", "")).lstrip("/").partition("/")
    return {
        "time": response.get("time", ""),
        "operation": record.get("funcname", "").removeprefix("s3."),
        "method": request["method"],
        "bucket": bucket,
        "key": key,
        "query": request.get("rawquery", ""),
        "range": headers.get("range", ""),
        "if_match": headers.get("if-match", ""),
        "status": response.get("statuscode", 0),
        "bytes_sent": counts["outputbytes"],
        "client": request.get("client", ""),
        "user_agent": headers.get("user-agent", ""),
    }


class Recorder:
    """Follows one server, over its restarts."""

    def __init__(self, port: int, file: Path, credentials: Credentials) -> None:
        self._port = port
        self._file = file
        self._credentials = credentials

    def follow(self) -> None:
        """Record until the server ends."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        host = f"127.0.0.1:{self._port}"
        connection.request("GET", f"{_TRACE}?{_QUERY}", headers=signed_headers(self._credentials, host, _TRACE, _QUERY))
        token, seen = secrets.token_hex(8), threading.Event()
        knocking = threading.Thread(target=self._knock, args=(token, seen), daemon=True)
        knocking.start()
        try:
            answer = connection.getresponse()
            if answer.status != 200:
                raise ConnectionError(f"the server refuses its record: {answer.status}")
            while line := answer.readline():
                # Spaces keep the connection alive.
                if text := line.strip():
                    self._write(condense(json.loads(text)), token, seen)
        finally:
            seen.set()
            connection.close()

    def _write(self, entry: dict[str, Any], token: str, seen: threading.Event) -> None:
        """Append one line, and tell once when the record has begun."""
        if entry["key"] == token and entry["bucket"] == MARKS:
            if seen.is_set():
                return
            seen.set()
            entry = {ATTACHED: token}
        with self._file.open("a", encoding="utf-8", errors="surrogatepass") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _knock(self, token: str, seen: threading.Event) -> None:
        """Make requests until one of them is in the record."""
        while not seen.is_set():
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
                connection.request("HEAD", f"/{MARKS}/{token}")
                connection.getresponse().read()
                connection.close()
            except (OSError, http.client.HTTPException):
                # The server went away again; follow() sees that too.
                pass
            seen.wait(0.02)


def main(arguments: list[str]) -> None:
    """Follow the server for ever."""
    port, file = arguments
    recorder = Recorder(int(port), Path(file), Credentials(os.environ[ACCESS_KEY], os.environ[SECRET_KEY]))
    last = ""
    while True:
        try:
            recorder.follow()
        except (OSError, http.client.HTTPException, ValueError, KeyError) as trouble:
            if str(trouble) != last:
                last = str(trouble)
                print(f"{trouble}; trying again", file=sys.stderr, flush=True)
        time.sleep(0.03)


if __name__ == "__main__":
    main(sys.argv[1:])
