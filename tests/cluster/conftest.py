"""A real two-node Kubernetes with Forebay installed, and a namespace for each test.

A cluster that already runs (from `make demo`) is used as it is and left running; otherwise it is started for the
session and removed at its end.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from testkit import image, seeding
from testkit.cluster import Cluster
from testkit.image import Image
from testkit.install import install
from testkit.progress import Progress
from testkit.store import Store
from testkit.workspace import Bucket, Workspace

TEST_BUCKET = "tests"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A cluster needs root; without it these tests are reported as not run, with the reason."""
    if os.geteuid() != 0:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="a cluster of this machine's own needs root"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes, up and ready."""
    one = Cluster(progress=Progress())
    was_up = one.healthy()
    one.up()
    yield one
    if not was_up:
        assert one.down() == []


@pytest.fixture(scope="session")
def store(cluster: Cluster) -> Store:
    """The S3 server behind its link, with an empty bucket for tests."""
    one = Store(cluster.settings, cluster.progress)
    one.up()
    one.create_bucket(TEST_BUCKET)
    return one


@pytest.fixture(scope="session")
def built(cluster: Cluster) -> Image:
    """The image of the working tree, on all nodes."""
    one = image.build(cluster.progress)
    cluster.load_image(one.archive)
    return one


@pytest.fixture(scope="session")
def forebay(cluster: Cluster, built: Image) -> Image:
    """Forebay, installed from manifests/ with the working tree's image."""
    install(cluster, built.name)
    return built


@pytest.fixture
def workspace(request: pytest.FixtureRequest, cluster: Cluster, store: Store, forebay: Image) -> Iterator[Workspace]:
    """A namespace of the test's own, deleted in the end; what a failed test left to see is printed before."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.originalname.removeprefix("test_"))[:40].strip("-")
    bucket = Bucket(name=TEST_BUCKET, endpoint=store.endpoint, access_key=store.access_key, secret_key=store.secret_key)
    one = Workspace(cluster=cluster, namespace=f"t-{name}", bucket=bucket, image=forebay.name)
    one.delete()
    one.create()
    failed_before = request.session.testsfailed
    yield one
    if request.session.testsfailed > failed_before:
        print(
            cluster.kubectl("describe", "datasets,runtimes,dataloads", "-n", one.namespace, check=False).stdout[-8000:]
        )
        print(cluster.kubectl("get", "pods,pvc,events", "-n", one.namespace, check=False).stdout[-6000:])
    # The namespace controller waits half of the pods' grace before it looks again: the next test need not.
    one.abandon()


Seed = Callable[..., seeding.Seeded]


@pytest.fixture
def seed(store: Store, workspace: Workspace) -> Seed:
    """Put objects under a prefix: the test's own unless another is named."""

    def put(objects: Mapping[str, bytes], prefix: str = "") -> seeding.Seeded:
        return seeding.put(store, TEST_BUCKET, prefix or workspace.namespace, objects)

    return put
