"""``OnOpen``: whoever opens a file gets the version that its source has then. A real mount, workers and store."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from forebay_node.mounts import current_mounts, detach, mounted_at
from forebay_protocol.keys import CHUNK_SIZE
from testkit.buckets import Bucket
from testkit.sample_cluster import OBJECTS, Make
from testkit.store_proxy import StoreProxy
from testkit.waiting import eventually
from testkit.worker_processes import WorkerCluster

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="a real mount needs root and /dev/fuse"
    ),
]

NAME = "model/one chunk"
LARGE = "model/big.safetensors"


@pytest.fixture
def cluster(make: Make) -> WorkerCluster:
    """Two workers that would not list again for an hour."""
    made = make(refresh=3600.0)
    made.document = replace(made.document, on_open=True)
    made.start(2).wait_for_index()
    return made


@pytest.fixture
def target(cluster: WorkerCluster, tmp_path: Path) -> Iterator[Path]:
    """The mount's folder."""
    folder, log = tmp_path / "mnt", tmp_path / "mount.log"
    folder.mkdir()
    command = [sys.executable, "-m", "forebay_node.fuse", f"--mount={folder}", f"--keys={cluster.access}/keys"]
    command += [f"--{name}={cluster.access}/{name}.json" for name in ("dataset", "credentials")]
    command += [f"--worker=127.0.0.1:{worker.control_port}" for worker in cluster.workers]
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(command, stderr=output, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
        stack.callback(process.wait, timeout=15)

        def is_up() -> bool:
            assert process.poll() is None, log.read_text()
            return bool(mounted_at(folder, current_mounts()))

        eventually(is_up, timeout=20, what="it is mounted", interval=0.05)
        stack.callback(detach, folder)
        yield folder


def test_every_open_shows_what_the_source_has(target: Path, bucket: Bucket, proxy: StoreProxy) -> None:
    """Overwritten ten times, shorter, longer and back to the first version: each open after that sees it at once."""
    first = OBJECTS[NAME]
    for number in range(10):
        body = first if number == 6 else os.urandom(1 + number * 700_000)
        bucket.put({NAME: body})

        assert (target / NAME).read_bytes() == body
        assert (target / NAME).stat().st_size == len(body)

    before = len(proxy.seen)
    assert (target / NAME).read_bytes() == body
    asked = [one for one in proxy.seen[before:] if one.path.endswith(NAME)]
    assert [one.range for one in asked] == ["bytes=0-0"], "an open of an unchanged file asks for one byte of it"


def test_a_deleted_file_is_gone_at_the_next_open(target: Path, bucket: Bucket) -> None:
    """Also for a file that was open a moment before."""
    assert (target / NAME).read_bytes() == OBJECTS[NAME]
    bucket.client.delete_object(Bucket=bucket.name, Key=NAME)
    with pytest.raises(FileNotFoundError):
        (target / NAME).read_bytes()

    assert (target / LARGE).read_bytes() == OBJECTS[LARGE]


def test_who_has_the_file_open_keeps_its_version_or_is_told(target: Path, bucket: Bucket) -> None:
    """What was read is of the old version, the rest is too or fails; whoever opens it anew has the new one."""
    old, new = OBJECTS[LARGE], os.urandom(len(OBJECTS[LARGE]))
    failures: set[int | None] = set()
    with (target / LARGE).open("rb", buffering=0) as held:
        assert held.read(1000) == old[:1000]
        bucket.put({LARGE: new})
        with (target / LARGE).open("rb") as fresh:
            assert fresh.read() == new
        for offset in range(0, len(old), CHUNK_SIZE):
            try:
                data = os.pread(held.fileno(), 5000, offset)
            except OSError as error:
                failures.add(error.errno)
            else:
                assert data == old[offset : offset + 5000]
    assert failures <= {errno.ESTALE}


def test_without_workers_the_mount_asks_the_store_itself(target: Path, cluster: WorkerCluster, bucket: Bucket) -> None:
    """A new version shows also when nobody but the store is left."""
    for worker in cluster.workers:
        worker.close()
    body = os.urandom(5000)
    bucket.put({NAME: body})

    assert (target / NAME).read_bytes() == body
