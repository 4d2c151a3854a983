"""What a mount and its workers trust each other by, and how a mount gets it anew while it lives.

A mount is given the dataset's keys once, when it is staged. Workers tell with every answer which key is to sign;
a mount that has another one asks a worker for the keys that are in force. They travel sealed (AES-256-GCM, NIST
SP 800-38D) with a key derived (HKDF-SHA256, RFC 5869) from the one that signed the question, so that a token
that was seen on the way opens data for its hour at most, never the keys.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from forebay_protocol import auth
from forebay_protocol.errors import ForebayError, InvalidRequest, Unauthorized

_NONCE = 12
_PURPOSE = b"forebay trust v1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trust:
    """Keys that are accepted; the first one signs."""

    keys: tuple[bytes, ...] = field(repr=False)


def _cipher(key: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, None, _PURPOSE).derive(key))


def seal(trust: Trust, key: bytes, scope: str) -> bytes:
    """The trust for whoever holds ``key``; ``scope`` is the Dataset's UID."""
    text = json.dumps({"keys": [one.decode() for one in trust.keys]})
    nonce = os.urandom(_NONCE)
    return nonce + _cipher(key).encrypt(nonce, text.encode(), scope.encode())


def unseal(sealed: bytes, key: bytes, scope: str) -> Trust:
    """What ``seal`` made; InvalidRequest when it was made with another key or for another dataset."""
    try:
        raw = json.loads(_cipher(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], scope.encode()))
        return Trust(auth.parse_keys("\n".join(raw["keys"])))
    except (InvalidTag, ValueError, KeyError, TypeError):
        # The parser's own message may quote what it read.
        raise InvalidRequest("a worker's keys are not sealed with a key of this mount") from None


class Worker(Protocol):
    """A worker that was asked something."""

    @property
    def signing_key(self) -> str:
        """The id of the key to sign with, as its last answer said; empty before."""

    def sealed_trust(self) -> bytes:
        """The body of GET /v1/trust."""


class TrustHolder:
    """The newest trust that this process knows. Thread-safe."""

    def __init__(self, scope: str, trust: Trust, clock: Callable[[], float] = time.time) -> None:
        """``scope`` is the Dataset's UID; ``clock`` tells Unix time."""
        self._scope = scope
        self._trust = trust
        self._clock = clock
        self._lock = threading.Lock()
        self._listener: Callable[[Trust], None] | None = None

    def watch(self, listener: Callable[[Trust], None]) -> None:
        """Call this with every newer trust."""
        self._listener = listener

    def token(self) -> str:
        """A token that is valid from now."""
        return auth.mint(self._trust.keys[0], self._scope, self._clock())

    def follow(self, worker: Worker) -> None:
        """Take newer keys from a worker that has just answered, if it has any."""
        if worker.signing_key in {"", auth.key_id(self._trust.keys[0])}:
            return
        with self._lock:
            if worker.signing_key == auth.key_id(self._trust.keys[0]):
                return
            try:
                # Asked with a token of the first key, and so sealed with it.
                self._trust = unseal(worker.sealed_trust(), self._trust.keys[0], self._scope)
            except Unauthorized:
                raise
            except ForebayError as error:
                _log.warning("the dataset's new keys cannot be had yet: %s", error)
                return
        _log.info("took up the dataset's keys; %s signs", auth.key_id(self._trust.keys[0]))
        if self._listener is not None:
            self._listener(self._trust)
