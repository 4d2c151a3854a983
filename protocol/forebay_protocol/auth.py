"""Who may ask a worker: short-lived tokens signed with the Runtime's key.

A token is ``v1.<expiry>.<signature>``: the signature is HMAC-SHA256 (RFC 2104) over version, scope and
expiry, where the scope is the Dataset's UID, so one tenant's token opens nothing of another's. Whoever holds
the key mints tokens for itself. A key file holds one key per line; the first signs, all of them verify, so a
key is rotated in three steps: the new one is added behind, for all to know it; it goes in front; the old one goes.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from forebay_protocol.errors import Unauthorized

TOKEN_LIFETIME = 3600
"""Seconds that a token is valid unless its maker says otherwise."""

_CLOCK_TOLERANCE = 60


@dataclass(frozen=True, slots=True)
class Grant:
    """What a good token says: the key that signed it, and the Unix time until which it is accepted."""

    key: bytes = field(repr=False)
    until: float


def parse_keys(text: str) -> tuple[bytes, ...]:
    """The keys of a key file, newest first; ValueError when it holds none."""
    keys = tuple(line.strip().encode() for line in text.splitlines() if line.strip())
    if not keys:
        raise ValueError("the key file holds no key")
    return keys


def key_id(key: bytes) -> str:
    """8 hex digits by which a key may be named in the open: a digest of 256 random bits gives nothing away."""
    return hashlib.blake2b(key, digest_size=4, person=b"forebay key id").hexdigest()


def _signature(key: bytes, scope: str, expiry: int) -> str:
    digest = hmac.digest(key, f"v1.{scope}.{expiry}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def mint(key: bytes, scope: str, now: float, lifetime: float = TOKEN_LIFETIME) -> str:
    """A token for ``scope`` that expires ``lifetime`` seconds after ``now`` (Unix time)."""
    expiry = int(now + lifetime)
    return f"v1.{expiry}.{_signature(key, scope, expiry)}"


def verify(keys: Sequence[bytes], token: str, scope: str, now: float) -> Grant:
    """What the token grants when any key signed it for this scope and it has not expired; else Unauthorized."""
    version, _, rest = token.partition(".")
    expiry_text, _, signature = rest.partition(".")
    if version != "v1" or not (expiry_text.isascii() and expiry_text.isdigit()) or len(expiry_text) > 12:
        raise Unauthorized("the request carries no token of this protocol")
    expiry = int(expiry_text)
    given = signature.encode("utf-8", "surrogatepass")
    signer = next((key for key in keys if hmac.compare_digest(_signature(key, scope, expiry).encode(), given)), None)
    if signer is None:
        raise Unauthorized("the token is not signed for this dataset by a key that is in force")
    if now > expiry + _CLOCK_TOLERANCE:
        raise Unauthorized("the token has expired")
    return Grant(signer, expiry + _CLOCK_TOLERANCE)
