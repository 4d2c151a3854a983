"""A dataset of invented files, served by fake workers and mounted for real by the FUSE server's own program."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from forebay.index.packing import Packer
from forebay.index.writer import Origin, SnapshotWriter
from forebay.source.base import Listing
from forebay_node.mounts import current_mounts, detach, mounted_at
from forebay_protocol.dataset import DatasetDocument, MountSpec
from forebay_protocol.ring import Ring
from testkit.fake_worker import FakeWorker
from testkit.waiting import eventually

UID = "uid"
MOUNT = MountSpec(name="m", source="s3://bucket/data", path="/")
DOCUMENT = DatasetDocument(uid=UID, namespace="team", name="data", mounts=(MOUNT,), refresh_seconds=4.0)


AWKWARD_FILES = {
    "model/a b.safetensors": os.urandom(9 * 1024 * 1024 + 12345),
    "model/tiny": b"x",
    "empty": b"",
    "folder/": b"",
    "ünï/çødé 文件.txt": "ü".encode() * 40000,
    "per%cent/%2F": b"percent",
    "deep/" + "/".join(f"level{number}" for number in range(40)) + "/leaf": b"leaf",
    "double//slash": b"escaped",
    "../up": b"no escape",
    "a\nnewline": b"newline",
    "-rf": b"dash",
    "long/" + "n" * 255: b"255 bytes of name",
    "longer/" + "n" * 400: b"400 bytes of name",
    **{f"many/{number:04}": b"%d" % number * 50 for number in range(1500)},
}
"""Keys as object stores allow them."""


def snapshot_of(files: dict[str, tuple[bytes, str]], generation: int, path: Path) -> bytes:
    """A packed index of files: key below the mount to bytes and version."""
    origin = Origin(dataset_uid=UID, generation=generation, built_at=1.7e9 + generation, mounts=(MOUNT,))
    packer = Packer(path.with_suffix(".packed"))
    writer = SnapshotWriter(path, origin, packer.write)
    listings = [
        Listing(f"data/{key}", len(data), version, 1_700_000_000_123_456_789)
        for key, (data, version) in sorted(files.items(), key=lambda one: one[0].encode())
    ]
    writer.add("m", listings)
    writer.finish()
    packer.finish()
    return path.with_suffix(".packed").read_bytes()


class MountedDataset:
    """Workers, an index, and a mount of them below ``folder``."""

    def __init__(self, folder: Path, files: dict[str, bytes], *, workers: int = 2) -> None:
        """Write the documents and start the workers; nothing is mounted yet."""
        self.folder = folder
        self.target = folder / "mnt"
        self.target.mkdir()
        self.workers = [FakeWorker(f"w-{number}") for number in range(workers)]
        self.generation = 0
        self.publish({key: (data, "v1") for key, data in files.items()})
        self.set_members(self.workers)
        (folder / "dataset.json").write_text(json.dumps(DOCUMENT.to_json()))
        (folder / "keys").write_text("k" * 64)
        self.process: subprocess.Popen[bytes] | None = None

    def publish(self, files: dict[str, tuple[bytes, str]]) -> None:
        """Give all workers another generation."""
        self.generation += 1
        raw = snapshot_of(files, self.generation, self.folder / "index.tmp")
        for worker in self.workers:
            worker.objects = {f"data/{key}": data for key, (data, _) in files.items()}
            worker.index = (self.generation, raw)

    def set_members(self, workers: Iterable[FakeWorker]) -> None:
        """Make these the ring, at the next epoch."""
        ring = Ring(epoch=self.workers[0].ring.epoch + 1, members=tuple(worker.member for worker in workers))
        for worker in self.workers:
            worker.ring = ring

    def mount(self, *arguments: str) -> Self:
        """Start the server and wait until the file system is there."""
        seeds = [f"--worker=127.0.0.1:{worker.member.control_port}" for worker in self.workers]
        documents = [f"--dataset={self.folder}/dataset.json", f"--keys={self.folder}/keys"]
        command = [sys.executable, "-m", "forebay_node.fuse", f"--mount={self.target}", *documents, *seeds, *arguments]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
        eventually(lambda: self.is_mounted() or self.died(), timeout=15, interval=0.02, what="the mount is there")
        assert self.is_mounted(), self.log()
        return self

    def died(self) -> bool:
        """Whether the server has ended."""
        return self.process is not None and self.process.poll() is not None

    def is_mounted(self) -> bool:
        """Whether the kernel lists the mount."""
        return bool(mounted_at(self.target, current_mounts()))

    def log(self) -> str:
        """What the server said."""
        return (self.folder / "log").read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_mounted():
            detach(self.target)
        if self.process is not None:
            self.process.wait(timeout=20)
        for worker in self.workers:
            worker.close()
