"""The key of a Dataset's tokens is replaced while a pod reads."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from forebay_operator.reconcile.key_rotation import GRACE
from forebay_protocol.auth import key_id
from testkit.cluster import Cluster
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]
SECRET = "data-forebay-access"
NOTE = "forebay.io/key-rotation"


def keys(workspace: Workspace) -> list[str]:
    """The keys of the access Secret, the signing one first."""
    return base64.b64decode(workspace.get("secret", SECRET)["data"]["keys"]).decode().split()


def note(workspace: Workspace) -> dict[str, str]:
    """How far the rotation is."""
    found: dict[str, str] = json.loads(workspace.get("secret", SECRET)["metadata"]["annotations"][NOTE])
    return found


def served_bytes(workspace: Workspace) -> float:
    """What all workers together have served to readers."""
    return sum(
        value
        for worker in workspace.workers()
        for series, value in workspace.metrics(worker["metadata"]["name"]).items()
        if series.partition("{")[0] in {"forebay_worker_hit_bytes_total", "forebay_worker_miss_bytes_total"}
    )


def mount_logs(cluster: Cluster) -> str:
    """What the node plugins and their mounts say."""
    pods = cluster.kubectl("get", "pods", "-n", "forebay-node", "-o", "name").stdout.split()
    return "".join(cluster.kubectl("logs", "-n", "forebay-node", "--all-containers", pod).stdout for pod in pods)


def test_a_key_is_rotated_while_a_volume_is_staged(workspace: Workspace, cluster: Cluster, seed: Seed) -> None:
    """The mount that was there before reads on from the workers when the key that it was staged with is gone."""
    seeded = seed(big_objects(count=2, size=8 << 20))
    workspace.reader_files(seeded.rows)
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime())
    workspace.wait("dataset", "data")
    (old,) = keys(workspace)
    holder = workspace.holder("holder", "node-1")

    cluster.kubectl("annotate", "dataset", "data", "-n", workspace.namespace, "forebay.io/rotate-key=now")
    eventually(lambda: note(workspace)["phase"], timeout=60, what="promoted", until=lambda phase: phase == "Promoted")
    new, second = keys(workspace)
    assert (second, new != old) == (old, True)
    eventually(
        lambda: [event["reason"] for event in workspace.find("events")],
        timeout=30, what="people hear of it", until=lambda reasons: "KeyRotated" in reasons,
    )  # fmt: skip

    # The mount looks within 30 s; only then may the day of grace be over before its time.
    signs = f"took up the dataset's keys; {key_id(new.encode())} signs"
    eventually(lambda: signs in mount_logs(cluster), timeout=60, interval=2, what="the mount has the new key")
    long_ago = datetime.now(UTC) - 2 * GRACE
    over = json.dumps({**note(workspace), "since": long_ago.strftime("%Y-%m-%dT%H:%M:%SZ")})
    cluster.kubectl("annotate", "secret", SECRET, "-n", workspace.namespace, "--overwrite", f"{NOTE}={over}")
    eventually(lambda: keys(workspace), timeout=60, what="the old key is retired", until=lambda held: held == [new])
    reader = workspace.reader("reader", "node-1", ("verify",))
    reader.start(cluster)
    assert reader.results(cluster)["verify"]["wrong"] == []
    assert served_bytes(workspace) >= 16 << 20
    holder.delete(cluster)
