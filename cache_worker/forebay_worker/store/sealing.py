"""Encryption at rest: what a disk holds of a chunk is of no use without the dataset's data key.

AES-256 in counter mode (NIST SP 800-38A) with a random start for each chunk that is written, so that bytes keep
their places and any range can be read by itself. Damage is found by the checksums, which are of the plain bytes.
Names and sizes in the catalogue are not encrypted.
"""

import hashlib
import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_SIZE = 32
_START_SIZE = 16
_STEP = 16
_WRAP = 1 << 128


class Sealing:
    """Encrypts and decrypts chunks with one key. Thread-safe."""

    def __init__(self, key: bytes) -> None:
        """``key`` has ``KEY_SIZE`` bytes; ValueError otherwise."""
        if len(key) != KEY_SIZE:
            raise ValueError(f"a data key has {KEY_SIZE} bytes")
        self._algorithm = algorithms.AES(key)
        self.key_id = hashlib.blake2b(key, digest_size=8, person=b"forebay data").hexdigest()
        """What may be told of the key: chunks of another one are dropped."""

    @staticmethod
    def new_start() -> bytes:
        """Where the counter of a chunk begins; kept beside its checksums."""
        return os.urandom(_START_SIZE)

    def apply(self, start: bytes, within: int, data: bytes | memoryview) -> bytes:
        """Plain to sealed or back, for bytes from ``within`` the chunk on; ``within`` is a multiple of 16."""
        counter = (int.from_bytes(start, "big") + within // _STEP) % _WRAP
        return Cipher(self._algorithm, modes.CTR(counter.to_bytes(_START_SIZE, "big"))).encryptor().update(data)
