"""What pods may do with a volume, on the real kubelet, and the conformance of the plugin that is deployed there."""

import base64
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forebay_node.paths import NodePaths
from testkit.cluster import Cluster
from testkit.csi_sanity import conform
from testkit.seeding import Seeded, random_object
from testkit.waiting import eventually
from testkit.workloads import apply
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]
INLINE = {
    "driver": "csi.forebay.io",
    "readOnly": True,
    "nodePublishSecretRef": {"name": "data-forebay-access"},
    "volumeAttributes": {"forebay.io/dataset": "data"},
}


def _pod(workspace: Workspace, name: str) -> dict[str, Any]:
    """A pod with two volumes of one Dataset, inline and by its claim, an init container, a subPath and an fsGroup."""
    pod = workspace.reader(name, "node-1", ("verify",)).manifest()
    spec = pod["spec"]
    spec["securityContext"] = {"fsGroup": 4321}
    spec["volumes"][0] = {"name": "data", "csi": INLINE}
    spec["volumes"].append({"name": "claim", "persistentVolumeClaim": {"claimName": "data"}})
    (reader,) = spec["containers"]
    below = {**reader, "name": "below", "command": ["sha256sum", "/below/x"]}
    below["volumeMounts"] = [{"name": "claim", "mountPath": "/below", "subPath": "folder"}]
    writer = {**reader, "name": "writer", "command": ["sh", "-c", "! touch /data/new && ! touch /claim/new"]}
    writer["volumeMounts"] = [{"name": "data", "mountPath": "/data"}, {"name": "claim", "mountPath": "/claim"}]
    spec["initContainers"] = [{**reader, "name": "first"}, writer]
    spec["containers"] = [reader, below]
    return pod


def _inline_mounts(cluster: Cluster) -> list[str]:
    mounts = cluster.nodes["node-1"].run(["cat", "/proc/self/mountinfo"]).stdout.splitlines()
    return [line for line in mounts if "csi.forebay.io/inline" in line]


def test_pods_use_volumes_in_every_way(workspace: Workspace, cluster: Cluster, seed: Seed) -> None:
    """Inline and by claim, with subPath, fsGroup and init containers, from several pods at once; nobody can write."""
    seeded = seed(random_object("folder/x", 3 << 20))
    workspace.reader_files(seeded.rows)
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1))
    workspace.wait("dataset", "data")
    names = ("one", "two")

    apply(cluster, *(_pod(workspace, name) for name in names))

    for name in names:
        reader = workspace.reader(name, "node-1", ("verify",))
        eventually(
            partial(reader.phase, cluster), timeout=90, what="the pod ends",
            until=lambda phase: phase in ("Succeeded", "Failed"),
        )  # fmt: skip
        said = cluster.kubectl("logs", "-n", workspace.namespace, name, "--all-containers").stdout
        assert reader.phase(cluster) == "Succeeded", said
        assert seeded.rows[0][3] in said
        reader.delete(cluster)

    held = {**INLINE, "readOnly": None}
    holder = workspace.reader("holder", "node-1", ("hold",), config="holder").manifest()
    holder["spec"]["volumes"][0] = {"name": "data", "csi": held}
    workspace.reader_files([], "holder")
    apply(cluster, holder)
    running = workspace.reader("holder", "node-1", ("hold",))
    eventually(lambda: running.phase(cluster), timeout=60, what="it runs", until=lambda phase: phase == "Running")
    cluster.kubectl("delete", "dataset", "data", "-n", workspace.namespace, "--wait=false")
    eventually(
        lambda: workspace.condition("dataset", "data", "Ready").get("message", ""), timeout=30,
        what="the Dataset waits for the pod that has no claim", until=lambda message: "holder" in message,
    )  # fmt: skip
    running.delete(cluster)
    eventually(lambda: workspace.get("dataset", "data"), timeout=60, what="the Dataset goes", until=lambda one: not one)
    eventually(partial(_inline_mounts, cluster), timeout=30, what="no inline mount", until=lambda left: not left)


def test_the_deployed_plugin_conforms(workspace: Workspace, cluster: Cluster, seed: Seed, tmp_path: Path) -> None:
    """csi-sanity at its socket, with the access Secret that the operator wrote."""
    seeded = seed(random_object("x", 1 << 20))
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1))
    workspace.wait("dataset", "data")
    secret = workspace.get("secret", "data-forebay-access")["data"]
    access = {name: base64.b64decode(text).decode() for name, text in secret.items()}

    passed = conform(cluster.nodes["node-1"].command([]), NodePaths(Path("/var/lib/kubelet")), "data", access, tmp_path)

    assert {"Node Service should work", "Node Service should be idempotent"} <= set(passed)
