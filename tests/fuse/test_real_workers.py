"""Mounts over real cache workers and a real S3 server: workers, a killed worker, no worker at all."""

import hashlib
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import boto3
import pytest

from forebay.index.naming import names_of
from forebay_node.mounts import current_mounts, detach, mounted_at
from forebay_protocol.dataset import Credentials, DatasetDocument
from testkit.buckets import Bucket
from testkit.fuse_mount import AWKWARD_FILES
from testkit.waiting import eventually
from testkit.worker_processes import WorkerCluster

SECRET = "not-to-be-seen-in-any-log"
FILES = {
    **{key: data for key, data in AWKWARD_FILES.items() if not key.startswith(("many/", "a\n"))},
    "both": b"hidden by the folder",
    "both/below": b"shown",
}
LARGE = "model/a b.safetensors"


@pytest.fixture
def bucket(store: str) -> Bucket:
    """A bucket with the awkward files."""
    client = boto3.client(
        "s3", endpoint_url=store, region_name="us-east-1", aws_access_key_id="id", aws_secret_access_key=SECRET
    )
    made = Bucket(store, f"test-{uuid.uuid4().hex[:16]}", client)
    client.create_bucket(Bucket=made.name)
    made.put(FILES)
    return made


@dataclass
class Mount:
    """The dataset's file system, served by its own process; unmounted on exit."""

    cluster: WorkerCluster
    target: Path
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def __enter__(self) -> Self:
        access = self.cluster.access
        command = [sys.executable, "-m", "forebay_node.fuse", f"--mount={self.target}"]
        command += [f"--{name}={access}/{name}.json" for name in ("dataset", "credentials")]
        command += [f"--keys={access}/keys"]
        command += [f"--worker=127.0.0.1:{worker.control_port}" for worker in self.cluster.workers]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
        eventually(self.is_up, timeout=20, what="the mount is there", interval=0.05)
        return self

    def is_up(self) -> bool:
        """Whether the kernel lists it."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return bool(mounted_at(self.target, current_mounts()))

    def path(self, key: str) -> Path:
        """Where a key is shown."""
        return self.target.joinpath(*names_of(key))

    def check_all(self) -> None:
        """Compare every file, with nothing in the kernel's cache."""
        Path("/proc/sys/vm/drop_caches").write_text("3")
        for key, data in FILES.items():
            if key.endswith("/") or key == "both":
                assert self.path(key).is_dir()
            else:
                assert self.path(key).read_bytes() == data, key

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        detach(self.target)
        assert self.process.wait(timeout=15) == 0
        assert SECRET not in self.log.read_text()


@pytest.fixture
def mount(bucket: Bucket, tmp_path: Path) -> Iterator[Mount]:
    """Two workers with an index, and the mount over them."""
    document = DatasetDocument(uid="uid-1", namespace="t", name="d", mounts=(bucket.mount(),), refresh_seconds=2.0)
    credentials = {"data": Credentials(access_key_id="id", secret_access_key=SECRET)}
    target = tmp_path / "mnt"
    target.mkdir()
    with WorkerCluster(tmp_path, document, credentials) as cluster:
        cluster.start(2).wait_for_index()
        with Mount(cluster, target, tmp_path / "log") as mounted:
            yield mounted


def test_all_names_through_workers_then_through_one_then_without(mount: Mount) -> None:
    """Cold, from the workers' cache, with one worker killed, and from the store itself when both are."""
    mount.check_all()
    mount.check_all()
    mount.cluster.workers[0].close()
    mount.check_all()
    mount.cluster.workers[1].close()
    mount.check_all()
    assert path_count(mount) == len([key for key in FILES if not key.endswith("/")]) - 1


def path_count(mount: Mount) -> int:
    """How many files the tree has."""
    return sum(len(names) for _, _, names in os.walk(mount.target))


def test_a_worker_is_killed_and_comes_back_under_readers(mount: Mount) -> None:
    """No error and no wrong byte for four readers over a kill and a restart."""
    wanted = hashlib.sha256(FILES[LARGE]).digest()
    seen: list[bytes] = []
    failures: list[OSError] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                descriptor = os.open(mount.path(LARGE), os.O_RDONLY | os.O_DIRECT)
                with os.fdopen(descriptor, "rb", buffering=0) as file:
                    digest = hashlib.sha256()
                    while piece := os.pread(file.fileno(), 1 << 20, file.seek(0, os.SEEK_CUR)):
                        digest.update(piece)
                        file.seek(len(piece), os.SEEK_CUR)
                    seen.append(digest.digest())
            except OSError as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()

    def eight_more() -> None:
        before = len(seen)
        eventually(lambda: len(seen) >= before + 8, timeout=60, what="reading goes on")

    eight_more()
    mount.cluster.workers[0].close()
    eight_more()
    mount.cluster.workers[0].start("uid-1")
    eight_more()
    done.set()
    for reader in readers:
        reader.join()

    assert failures == []
    assert set(seen) == {wanted}


def test_an_object_is_overwritten_while_it_is_read(mount: Mount, bucket: Bucket) -> None:
    """Every read is wholly old, wholly new, or an error; the new version shows within the refresh interval and some."""
    old, new = FILES[LARGE], os.urandom(len(FILES[LARGE]))
    outcomes: set[str] = set()

    def read() -> str:
        Path("/proc/sys/vm/drop_caches").write_text("3")
        try:
            data = mount.path(LARGE).read_bytes()
        except OSError as error:
            return os.strerror(error.errno or 0)
        return {old: "old", new: "new"}.get(data, "mixed")

    outcomes.add(read())
    bucket.put({LARGE: new, "fresh": b"fresh"})

    def shows_new() -> bool:
        outcomes.add(read())
        return "new" in outcomes

    eventually(shows_new, timeout=15, what="the new version shows")
    eventually(mount.path("fresh").exists, timeout=5, what="the new file shows")
    assert outcomes <= {"old", "new", "Stale file handle"}
