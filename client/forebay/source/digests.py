"""Objects that are read at once are compared with their MD5, where the store's ETag is one.

Ranges carry no checksum, so over plain HTTP this is what finds a bit that flipped on the way. ETags of objects that
were uploaded in parts or are encrypted are no MD5; those of some stores never are, which shows when an object arrives
again and again with the same bytes, so often that chance does not explain it: two flips hit the same bit of one byte
easily, of a megabyte hardly ever.
"""

import base64
import binascii
import hashlib
import math
import re
import threading

from forebay.source.base import Digest
from forebay.source.http_connection import Head
from forebay_protocol.errors import SourceInvalid

_MD5 = re.compile(r"[0-9a-f]{32}")
_MOST_DOUBTED = 256
_CHANCE = 2**30
"""One in so many: what is less likely is no chance any more."""


class EtagDigests:
    """What one store's ETags are worth. Thread-safe."""

    def __init__(self) -> None:
        """Believed until the opposite shows."""
        self._lock = threading.Lock()
        self._doubted: dict[tuple[str, str], tuple[str, int]] = {}
        self._are_digests = True
        self._have_matched = False

    def of(self, version: str, head: Head) -> Digest | None:
        """The digest that the head of an answer tells of a whole object, the cheaper one first; None without any."""
        crc32c = head.headers.get("x-amz-checksum-crc32c", "")
        if crc32c and head.headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT" and "-" not in crc32c:
            try:
                return Digest("crc32c", base64.b64decode(crc32c, validate=True))
            except binascii.Error:
                return None
        return Digest("md5", bytes.fromhex(version)) if self._is_digest(version, head) else None

    def _is_digest(self, version: str, head: Head) -> bool:
        if not self._are_digests or _MD5.fullmatch(version) is None:
            return False
        # One search in all names: this is asked for every small object.
        return "x-amz-server-side-encryption" not in " ".join(head.headers)

    def check(self, key: str, version: str, head: Head, data: memoryview) -> None:
        """Raise SourceInvalid when a whole object does not match its ETag."""
        if not self._is_digest(version, head):
            return
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found == version:
            self._have_matched = True
        elif not self._is_certain(key, version, found, len(data)):
            raise SourceInvalid("the bytes that arrived do not match the MD5 that the store gives for the object")

    def _is_certain(self, key: str, version: str, found: str, length: int) -> bool:
        """Whether these very bytes have come too often for chance: then it is the ETag that is something else.

        Of this object alone where others have matched, else of all.
        """
        with self._lock:
            last, times = self._doubted.get((key, version), ("", 0))
            times = times + 1 if last == found else 1
            if len(self._doubted) >= _MOST_DOUBTED:
                self._doubted.clear()
            self._doubted[key, version] = (found, times)
            if (times - 1) * math.log2(8 * length) < math.log2(_CHANCE):
                return False
            self._are_digests = self._have_matched
            return True
