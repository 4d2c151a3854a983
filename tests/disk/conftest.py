"""File systems of their own, which tests may fill, break and make read-only: that needs root."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.disks import Disk


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below this folder."""
    reason = "" if os.geteuid() == 0 else "a file system of one's own needs root"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.disk)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """96 MiB, mounted."""
    made = Disk(tmp_path, 96)
    made.mount()
    yield made
    made.unmount()
