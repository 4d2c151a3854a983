"""Official release downloads, checked against the published SHA-256."""

import hashlib
import re
import urllib.error
import urllib.request
from pathlib import Path

from testkit.progress import Progress

PROBE_SECONDS = 4.0
READ_SECONDS = 60.0
_BLOCK = 1 << 20
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


class NotReachable(Exception):
    """The release site does not answer: take another way."""


class WrongChecksum(RuntimeError):
    """A download is not what was published."""


def published_sha256(url: str, timeout: float = PROBE_SECONDS) -> str:
    """Fetch a small checksum file; this is also the probe whether the site is reachable at all."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - our own constant addresses
            text = answer.read(4096).decode("ascii", "replace")
    except (OSError, ValueError) as cause:
        raise NotReachable(f"{url}: {cause}") from cause
    found = _SHA256.search(text)
    if found is None:
        raise NotReachable(f"{url} holds no SHA-256")
    return found.group()


def download(url: str, target: Path, sha256: str, progress: Progress) -> None:
    """Fetch one file; it gets its name only when its checksum is right."""
    part = target.with_name(f"{target.name}.part")
    digest = hashlib.sha256()
    size = 0
    said = progress.elapsed
    try:
        with urllib.request.urlopen(url, timeout=READ_SECONDS) as answer, part.open("wb") as file:  # noqa: S310
            while block := answer.read(_BLOCK):
                file.write(block)
                digest.update(block)
                size += len(block)
                if progress.elapsed - said > 5:
                    said = progress.elapsed
                    progress.say(f"  {target.name}: {size >> 20} MiB")
    except OSError as cause:
        raise NotReachable(f"{url}: {cause}") from cause
    if digest.hexdigest() != sha256:
        part.unlink()
        raise WrongChecksum(f"{url} has SHA-256 {digest.hexdigest()}, published is {sha256}: removed")
    part.rename(target)
