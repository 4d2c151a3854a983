"""Real mounts need root and /dev/fuse; without them these tests are reported as not run, with the reason."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from testkit.fuse_mount import AWKWARD_FILES, MountedDataset
from testkit.worker_processes import free_port


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below this folder."""
    reason = "" if os.geteuid() == 0 and Path("/dev/fuse").exists() else "a real mount needs root and /dev/fuse"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.fuse)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An S3 server that takes every key; its URL."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[MountedDataset]:
    """The awkward files on two workers, mounted."""
    with MountedDataset(tmp_path, AWKWARD_FILES) as mounted:
        yield mounted.mount()
