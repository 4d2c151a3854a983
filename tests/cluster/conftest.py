"""A real two-node Kubernetes with Forebay installed, and a namespace for each test.

A cluster that already runs (from `make demo`) is used as it is and left running; otherwise it is started for the session
and removed at its end.
"""

import re
from collections.abc import Iterator

import pytest
from testkit import workloads
from testkit.cluster import Cluster
from testkit.dataset import Manifest, seed_tests
from testkit.image import build_image
from testkit.install import install, installed_image
from testkit.progress import Progress
from testkit.store import Store
from testkit.workspace import Bucket, Workspace

TEST_BUCKET = "tests"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes, up and ready."""
    one = Cluster(progress=Progress())
    was_up = one.is_up()
    one.up()
    yield one
    if not was_up:
        one.down()
