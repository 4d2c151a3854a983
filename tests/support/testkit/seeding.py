"""Objects for tests: deterministic contents, and what readers should find."""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testkit.store import Store


@dataclass(frozen=True)
class Seeded:
    """Objects that were put under a prefix: reader rows `[path, key, size, sha256]`."""

    bucket: str
    prefix: str
    rows: list[list[Any]]

    @property
    def total_bytes(self) -> int:
        """Sum of the sizes."""
        return sum(row[2] for row in self.rows)


def content(name: str, size: int) -> bytes:
    """Random bytes that depend on the name only."""
    return random.Random(name).randbytes(size)


def big_objects(count: int, size: int, folder: str = "big") -> dict[str, bytes]:
    """Files of several chunks."""
    return {f"{folder}/shard-{n:03}.bin": content(f"{folder}{n}", size + n) for n in range(count)}


def small_objects(count: int, size: int = 4096) -> dict[str, bytes]:
    """Many small files in folders of 100."""
    return {f"small/{n // 100:03}/{n:05}.txt": content(f"s{n}", size) for n in range(count)}


def awkward_objects() -> dict[str, bytes]:
    """Names that S3 allows and that programs get wrong."""
    names = (
        "with space.txt", " leading and trailing ", "ünïcödé/日本語.txt", "e\u0301 decomposed", "é composed",
        "100%.txt",
        "%2F percent-encoded slash", "a+b&c=d?e#f;g,h", "quote'\"back\\slash", "tab\tinside", "emoji-🚀",
        "/".join("deep" for _ in range(40)) + "/file", "x" * 255, "empty", ".hidden", "..dots..", "-dash", "*star*",
        "UPPER/lower", "upper/LOWER",
    )  # fmt: skip
    objects = {f"awkward/{name}": content(name, 1000 + len(name)) for name in names}
    return {**objects, "awkward/empty": b"", "awkward/folder object/": b""}


def random_object(name: str, size: int) -> dict[str, bytes]:
    """One object."""
    return {name: content(name, size)}


def put(store: Store, bucket: str, prefix: str, objects: Mapping[str, bytes]) -> Seeded:
    """Put the objects below the prefix; folder objects (`…/`) are no files."""
    for key, body in objects.items():
        store.put_bytes(bucket, f"{prefix}/{key}", body)
    rows = [
        [f"/{key}", f"{prefix}/{key}", len(body), hashlib.sha256(body).hexdigest()]
        for key, body in objects.items()
        if not key.endswith("/")
    ]
    return Seeded(bucket, prefix, rows)
