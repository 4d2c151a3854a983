"""What is wrong shows within 15 s in a condition and an event, and mends by itself when the cause is mended."""

from collections.abc import Callable
from typing import Any

import pytest

from testkit.seeding import Seeded, big_objects
from testkit.store import Store
from testkit.waiting import eventually
from testkit.workspace import SECRET, Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]


def _reason(workspace: Workspace, kind: str, reason: str, timeout: float = 15) -> dict[str, Any]:
    """Wait for a condition with the reason, and for an event that says the same."""
    found: dict[str, Any] = eventually(
        lambda: [one for one in workspace.status(kind, "data").get("conditions", []) if one["reason"] == reason],
        timeout=timeout, what=f"{kind} shows {reason} (has {workspace.status(kind, 'data').get('conditions')})",
    )[0]  # fmt: skip
    eventually(
        lambda: [
            event
            for event in workspace.find("events")
            if event["reason"] == reason and event["involvedObject"]["name"] == "data"
        ],
        timeout=15, what=f"an event says {reason}",
    )  # fmt: skip
    return found


def _healthy(workspace: Workspace, seed: Seed) -> Seeded:
    seeded = seed(big_objects(count=1, size=1 << 20))
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1))
    workspace.wait("dataset", "data")
    return seeded


def test_a_missing_secret(workspace: Workspace, seed: Seed) -> None:
    """Without its Secret a Dataset says so; when the Secret comes it becomes Ready."""
    seeded = seed(big_objects(count=1, size=1 << 20))
    workspace.cluster.kubectl("delete", "secret", SECRET, "-n", workspace.namespace)
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1))

    condition = _reason(workspace, "dataset", "SecretNotFound")
    assert SECRET in condition["message"]

    workspace.apply(workspace.secret())
    workspace.wait("dataset", "data", timeout=60)


def test_wrong_credentials(workspace: Workspace, seed: Seed) -> None:
    """A key that the store refuses shows as InvalidCredentials; the right key mends it."""
    _healthy(workspace, seed)

    workspace.apply(workspace.secret(secretAccessKey="wrong-wrong-wrong-wrong"))
    _reason(workspace, "dataset", "InvalidCredentials")

    workspace.apply(workspace.secret())
    workspace.wait("dataset", "data", timeout=60)


def test_no_such_bucket(workspace: Workspace, seed: Seed) -> None:
    """A bucket that does not exist is named."""
    seeded = seed(big_objects(count=1, size=1 << 20))
    workspace.apply(workspace.dataset(mount={"source": "s3://no-such-bucket-here"}), workspace.runtime(replicas=1))
    eventually(lambda: workspace.status("runtime", "data").get("readyReplicas"), timeout=60, what="the worker runs")
    condition = _reason(workspace, "dataset", "NoSuchBucket")
    assert "no-such-bucket-here" in condition["message"]

    workspace.apply(workspace.dataset(prefix=seeded.prefix))
    workspace.wait("dataset", "data", timeout=60)


def test_an_endpoint_that_does_not_answer(workspace: Workspace, seed: Seed) -> None:
    """Nobody listens there: the Dataset says which endpoint; with the right one it becomes Ready."""
    seeded = _healthy(workspace, seed)

    workspace.apply(workspace.dataset(prefix=seeded.prefix, mount={"endpoint": "http://127.0.0.1:9"}))
    condition = _reason(workspace, "dataset", "EndpointUnreachable")
    assert "127.0.0.1:9" in condition["message"]

    workspace.apply(workspace.dataset(prefix=seeded.prefix))
    workspace.wait("dataset", "data", timeout=60)


def test_a_store_that_stops_with_nobody_reading(workspace: Workspace, store: Store, seed: Seed) -> None:
    """An outage shows although no byte is asked for, and its end as well; the workers keep their rows."""
    _healthy(workspace, seed)

    store.stop()
    try:
        condition = _reason(workspace, "dataset", "EndpointUnreachable")
        assert store.endpoint in condition["message"]
        assert workspace.status("runtime", "data")["readyReplicas"] == 1
    finally:
        store.start()

    workspace.wait("dataset", "data", timeout=60)


def test_a_quota_larger_than_the_disk(workspace: Workspace, seed: Seed) -> None:
    """A tier that cannot hold its quota is said on the Runtime; a smaller quota mends it."""
    seeded = seed(big_objects(count=1, size=1 << 20))
    too_much = [{"medium": "SSD", "quota": "90Ti", "volume": {"emptyDir": {}}}]
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(replicas=1, tiers=too_much))

    _reason(workspace, "runtime", "QuotaExceedsDisk")

    workspace.apply(workspace.runtime(replicas=1, tiers=[{"medium": "SSD", "quota": "64Mi"}]))
    workspace.wait("runtime", "data", timeout=90)
    workspace.wait("dataset", "data", timeout=60)
