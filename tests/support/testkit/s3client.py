"""A small S3 client (Signature Version 4) on the standard library, for seeding and for asking the store itself."""

import datetime as dt
import hashlib
import hmac
import http.client
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlencode

REGION = "us-east-1"
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_UNSIGNED = "UNSIGNED-PAYLOAD"


class S3Error(RuntimeError):
    """The store refused a request."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:500]}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key pair; it does not show itself."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def expect(self, *allowed: int) -> Self:
        """The answer itself when its status is allowed; else what the store said, as an error."""
        if self.status not in allowed:
            raise S3Error(self.status, self.body.decode("utf-8", "replace"))
        return self


def sign(credentials: Credentials, method: str, path: str, query: str, headers: Mapping[str, str]) -> str:
    """The Authorization header for a request whose path and query are already encoded; `headers` in lower case."""
    moment, payload = headers["x-amz-date"], headers["x-amz-content-sha256"]
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}"
    scope = f"{moment[:8]}/{REGION}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope},SignedHeaders={names},Signature={signature}"


def signed_headers(credentials: Credentials, host: str, path: str, query: str) -> dict[str, str]:
    """All headers of a signed request without a body."""
    headers = {"host": host, "x-amz-date": timestamp(), "x-amz-content-sha256": _EMPTY_SHA256}
    return {**headers, "authorization": sign(credentials, "GET", path, query, headers)}


def timestamp() -> str:
    """The time as signatures have it."""
    return dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")


class S3Client:
    """Requests to one store. Each thread has a connection of its own, kept until `close`."""

    def __init__(self, host: str, port: int, credentials: Credentials) -> None:
        self._host = host
        self._port = port
        self._credentials = credentials
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all threads."""
        while self._opened:
            self._opened.pop().close()

    def request(
        self,
        method: str,
        bucket: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Path = b"",
    ) -> Answer:
        """Send one request; a kept connection that the store closed meanwhile is opened anew."""
        path = "/" + quote(bucket, safe="-_.~") + ("/" + quote(key, safe="/-_.~") if key else "")
        encoded = urlencode(sorted((query or {}).items()), quote_via=quote, safe="-_.~")
        size = len(body) if isinstance(body, bytes) else body.stat().st_size
        sent = {
            **{name.lower(): value for name, value in (headers or {}).items()},
            "host": f"{self._host}:{self._port}",
            "x-amz-date": timestamp(),
            "x-amz-content-sha256": _UNSIGNED if size else _EMPTY_SHA256,
        }
        authorization = sign(self._credentials, method, path, encoded, sent)
        whole = {**sent, "authorization": authorization, "content-length": str(size)}
        target = f"{path}?{encoded}" if encoded else path
        for last in (False, True):
            try:
                return self._send(method, target, whole, body)
            except (ConnectionError, http.client.RemoteDisconnected, http.client.CannotSendRequest):
                self._local.connection = None
                if last:
                    raise
        raise AssertionError("unreachable")

    def _send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | Path) -> Answer:
        """One attempt."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
            self._local.connection = connection
            self._opened.append(connection)
        try:
            if isinstance(body, bytes):
                connection.request(method, target, body=body, headers=dict(headers))
            else:
                with body.open("rb") as file:
                    connection.request(method, target, body=file, headers=dict(headers))
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        except BaseException:
            # Half an answer may be left in it.
            connection.close()
            self._local.connection = None
            raise
