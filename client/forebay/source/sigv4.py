"""AWS Signature Version 4 for requests without a body, with a clock that can be put right.

Source: "Authenticating Requests: Using the Authorization Header" of the S3 API reference. Keys are encoded once and
not normalised, as S3 alone has it.
"""

import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

_EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Keys:
    """What requests are signed with at one time. Its repr shows nothing."""

    access: str = field(repr=False)
    secret: str = field(repr=False)
    token: str = field(repr=False)


def encode(text: str, safe: str = "") -> str:
    """Percent-encode as the signature wants it: everything but letters, digits and ``-._~``."""
    return quote(text.encode("utf-8", "surrogateescape"), safe=safe)


def query_string(parameters: Mapping[str, str]) -> str:
    """A query in the one order and form that the signature knows."""
    return "&".join(f"{encode(name)}={encode(value)}" for name, value in sorted(parameters.items()))


class Signer:
    """Signs for one region. Thread-safe."""

    def __init__(self, region: str, clock: Callable[[], float] = time.time) -> None:
        """``clock`` gives Unix time; ``put_right`` corrects it."""
        self._region = region
        self._clock = clock
        self._offset = 0.0
        self._lock = threading.Lock()
        self._derived: tuple[tuple[str, str], bytes] | None = None

    def put_right(self, store_time: float) -> None:
        """Sign by the store's clock from now on: ours differs from it by more than it bears."""
        self._offset = store_time - self._clock()

    def sign(
        self, keys: Keys, method: str, path: str, query: str, headers: Mapping[str, str], host: str
    ) -> dict[str, str]:
        """The headers together with those that prove who asks."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock() + self._offset))
        signed = {**headers, "x-amz-date": stamp, "x-amz-content-sha256": _EMPTY}
        if keys.token:
            signed["x-amz-security-token"] = keys.token
        lines = sorted([("host", host), *((name.lower(), " ".join(value.split())) for name, value in signed.items())])
        names = ";".join(name for name, _ in lines)
        canonical = "\n".join([method, path, query, *(f"{name}:{value}" for name, value in lines), "", names, _EMPTY])
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}"
        signature = hmac.new(self._key(keys.secret, stamp[:8]), to_sign.encode(), hashlib.sha256).hexdigest()
        signed["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return signed

    def _key(self, secret: str, day: str) -> bytes:
        """The signing key of one day, derived once."""
        with self._lock:
            if self._derived is None or self._derived[0] != (secret, day):
                key = f"AWS4{secret}".encode()
                for part in (day, self._region, "s3", "aws4_request"):
                    key = hmac.new(key, part.encode(), hashlib.sha256).digest()
                self._derived = ((secret, day), key)
            return self._derived[1]
