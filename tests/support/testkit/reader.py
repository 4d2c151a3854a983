"""Runs inside a pod: reads a dataset through its PVC or straight from the bucket, and checks every byte.

Usage: ``reader.py CONFIG STEP...``; CONFIG is JSON: ``{"root", "bucket", "endpoint", "threads", "files": [[path,
key, size, sha256]...]}``. Steps: ``direct`` (from S3, nothing kept), ``read`` (through the mount; ``again`` is the
same once more), ``hold`` (keep the volume until SIGTERM), ``verify`` (SHA-256 of every file, and that there is no
other file). Each step prints one JSON line; the exit code is 1 if a step failed.
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

BUFFER = 1 << 20


def _drain(path: str) -> int:
    """Read a file to its end with plain reads of 1 MiB."""
    total = 0
    buffer = bytearray(BUFFER)
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as programs do
        while count := file.readinto(buffer):
            total += count
    return total


def _digest(path: str) -> str:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return hashlib.file_digest(file, "sha256").hexdigest()


class Reader:
    """The steps; each returns what its line shows besides the time."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Keep the wanted files and how many to read at a time."""
        self._config = config
        self._root: str = config["root"]
        self._files: list[list[Any]] = config["files"]
        self._pool = ThreadPoolExecutor(config.get("threads", 4))

    def direct(self) -> dict[str, Any]:
        """Read every object from S3 with plain GETs, as a program without a cache does."""
        import botocore.session
        from botocore.config import Config

        client: Any = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self._config["endpoint"],
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=64),
        )

        def get(key: str) -> int:
            body, total = client.get_object(Bucket=self._config["bucket"], Key=key)["Body"], 0
            while piece := body.read(BUFFER):
                total += len(piece)
            return total

        return {"bytes": sum(self._pool.map(get, [key for _, key, _, _ in self._files]))}

    def read(self) -> dict[str, Any]:
        """Read every file through the mount."""
        return {"bytes": sum(self._pool.map(_drain, [self._root + path for path, _, _, _ in self._files]))}

    def again(self) -> dict[str, Any]:
        """Read every file once more."""
        return self.read()

    def hold(self) -> dict[str, Any]:
        """Do nothing until the pod is deleted."""
        signal.sigwait({signal.SIGTERM})
        return {}

    def verify(self) -> dict[str, Any]:
        """Compare size and SHA-256 of every file with the source's, and the set of names."""
        wrong: list[str] = []

        def check(one: list[Any]) -> None:
            path, _, size, digest = one
            try:
                if Path(self._root + path).stat().st_size != size or _digest(self._root + path) != digest:
                    wrong.append(f"{path}: other bytes than the source")
            except OSError as error:
                wrong.append(f"{path}: {error.strerror}")

        list(self._pool.map(check, self._files))
        found = {f"{folder}/{name}"[len(self._root) :] for folder, _, names in os.walk(self._root) for name in names}
        wanted = {path for path, _, _, _ in self._files}
        wrong += [f"{path}: not in the source" for path in sorted(found - wanted)]
        wrong += [f"{path}: not listed" for path in sorted(wanted - found)]
        return {
            "files": len(self._files),
            "bytes": sum(one[2] for one in self._files),
            "wrong": wrong[:20],
            "failed": bool(wrong),
        }


def main(argv: list[str]) -> int:
    """Run the steps in order."""
    reader = Reader(json.loads(Path(argv[1]).read_text()))
    failed = False
    for name in argv[2:]:
        step: Callable[[], dict[str, Any]] = getattr(reader, name)
        start = time.monotonic()
        result = step()
        print(json.dumps({"step": name, "seconds": round(time.monotonic() - start, 3), **result}), flush=True)
        failed |= bool(result.get("failed"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
