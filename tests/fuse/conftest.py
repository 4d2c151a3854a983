"""Real mounts need root and /dev/fuse; without them these tests are reported as not run, with the reason."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.fuse_mount import MountedDataset


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below this folder."""
    reason = "" if os.geteuid() == 0 and Path("/dev/fuse").exists() else "a real mount needs root and /dev/fuse"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.fuse)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


FILES = {
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


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[MountedDataset]:
    """The awkward files on two workers, mounted."""
    with MountedDataset(tmp_path, FILES) as mounted:
        yield mounted.mount()
