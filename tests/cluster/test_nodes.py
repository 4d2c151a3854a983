"""Nodes come: they can mount soon after they are Ready."""

import json
import time
from collections.abc import Callable

import pytest

from testkit.cluster import Cluster
from testkit.image import Image
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]


def test_a_new_node_mounts_within_ten_seconds_of_ready(
    workspace: Workspace, cluster: Cluster, seed: Seed, forebay: Image
) -> None:
    """The node plugin registers, and a pod that waits there runs; the image is on the node, as with a node image."""
    seeded = seed(big_objects(count=1, size=1 << 20))
    workspace.reader_files(seeded.rows)
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1))
    workspace.wait("dataset", "data")
    pod = workspace.reader("reader", "node-3", ("verify",))
    pod.start(cluster)
    try:
        cluster.add_node("node-3", images=(forebay.archive,))
        ready = time.monotonic()

        def drivers() -> list[str]:
            found = json.loads(cluster.kubectl("get", "csinode", "node-3", "-o", "json").stdout)
            return [driver["name"] for driver in found["spec"].get("drivers") or []]

        eventually(drivers, timeout=10, what="the driver is registered", until=lambda names: "csi.forebay.io" in names)
        assert pod.results(cluster, timeout=max(1.0, ready + 30 - time.monotonic()))["verify"]["wrong"] == []
        pod.delete(cluster)
    finally:
        cluster.remove_node("node-3")
