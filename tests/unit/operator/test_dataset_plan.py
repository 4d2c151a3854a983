"""What a Dataset's plan says and asks for, in life and in deletion."""

from datetime import UTC, datetime
from typing import Any

from forebay_operator.model.dataset import Dataset
from forebay_operator.model.keys import KeySet
from forebay_operator.model.runtime import Runtime
from forebay_operator.reconcile import dataset as reconcile
from forebay_operator.reconcile.plan import Plan
from forebay_protocol.control import IndexState, IndexStatus, Problem, TierStatus, WorkerStatus

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OWNED = {"metadata": {"name": "demo", "ownerReferences": [{"uid": "d"}]}, "status": {"phase": "Bound"}}
VOLUME = {"metadata": {"name": "forebay-d"}, "status": {"phase": "Bound"}}


def dataset(status: dict[str, Any] | None = None, **metadata: Any) -> Dataset:
    """A Dataset of one mount."""
    return Dataset.read(
        {
            "metadata": {"name": "demo", "namespace": "ns", "uid": "d", "generation": 2, **metadata},
            "spec": {"mounts": [{"name": "m", "source": "s3://bucket", "credentialsSecretRef": {"name": "keys"}}]},
            "status": status or {},
        }
    )


def runtime(replicas: int = 2, layout: str = "Sharded") -> Runtime:
    """The Dataset's Runtime."""
    spec = {"replicas": replicas, "layout": layout, "tiers": [{"medium": "Memory", "quota": "64Mi"}]}
    return Runtime.read({"metadata": {"name": "demo", "namespace": "ns", "uid": "r"}, "spec": spec})


def report(**changes: Any) -> WorkerStatus:
    """A worker that has listed 1000 bytes and holds 300 of them."""
    facts: dict[str, Any] = {
        "id": "w",
        "epoch": 1,
        "dataset_revision": dataset().document().revision(),
        "index": IndexStatus(state=IndexState.READY, generation=3, built_at=1e9, total_bytes=1000, file_count=7),
        "tiers": (TierStatus(medium="Memory", capacity_bytes=600, used_bytes=300),),
        "cached_bytes": 300,
        "held_bytes": 300,
        "window_hit_bytes": 3,
        "window_miss_bytes": 1,
        "origin_bytes": 0,
        "peer_bytes": 0,
        "corrupt_chunks": 0,
    }
    return WorkerStatus(**{**facts, **changes})


def plan(subject: Dataset | None = None, **changes: Any) -> Plan:
    """The plan for these facts; by default all is well."""
    facts: dict[str, Any] = {
        "dataset": subject or dataset(),
        "runtime": runtime(),
        "credentials": {},
        "secret_problems": (),
        "keys": KeySet(keys=("key",), since=NOW),
        "fresh_key": "fresh",
        "claim": OWNED,
        "volume": VOLUME,
        "pods": (),
        "reports": {"w0": report(), "w1": report()},
    }
    return reconcile.plan_dataset(reconcile.Observed(**{**facts, **changes}), NOW)


def status(found: Plan) -> dict[str, Any]:
    """The status that the plan writes."""
    assert found.status is not None
    return found.status


def condition(found: Plan, kind: str = "Ready") -> tuple[str, str]:
    """Status and reason of a condition."""
    return next((c["status"], c["reason"]) for c in status(found)["conditions"] if c["type"] == kind)


def test_a_dataset_is_held_until_its_orderly_end() -> None:
    """By a finalizer, which is asked for once."""
    assert plan().hold
    assert not plan(dataset(finalizers=["forebay.io/volume"])).hold


def test_figures_add_up() -> None:
    """Cached bytes and room are sums over the workers; the index counts once; unverified bytes do not count."""
    found = status(plan(reports={"w0": report(held_bytes=450), "w1": report(held_bytes=500)}))

    assert found["phase"] == "Ready"
    assert (found["totalBytes"], found["fileCount"], found["generation"]) == (1000, 7, 3)
    assert (found["cachedBytes"], found["cachedPercent"], found["cacheCapacityBytes"]) == (600, 60, 1200)
    assert found["hitRatio"] == 75
    assert found["indexedAt"] == "2001-09-09T01:46:40Z"


def test_replicas_do_not_add_up() -> None:
    """Where every worker holds all, the smallest tells how much fits."""
    assert status(plan(runtime=runtime(layout="Replicated")))["cacheCapacityBytes"] == 600


def test_index_that_found_nothing_new_is_no_news() -> None:
    """The same generation built again does not move the status."""
    first = status(plan())
    later = report(
        index=IndexStatus(state=IndexState.READY, generation=3, built_at=2e9, total_bytes=1000, file_count=7)
    )

    assert status(plan(dataset(first), reports={"w0": later, "w1": later})) == first


def test_known_size_survives_without_workers() -> None:
    """With no worker to ask, the last known size stays; nothing is cached then."""
    found = plan(dataset(status(plan())), runtime=runtime(replicas=0), reports={})

    assert status(found)["totalBytes"] == 1000
    assert status(found)["cachedBytes"] == 0
    assert condition(found) == ("False", "NoWorkers")


def test_nothing_cached_of_an_empty_bucket_is_everything() -> None:
    """No division by zero, and no Dataset that never becomes full."""
    empty = report(index=IndexStatus(state=IndexState.READY, generation=1), cached_bytes=0)

    assert status(plan(reports={"w0": empty}))["cachedPercent"] == 100


def test_missing_secret_explains_everything_behind_it() -> None:
    """The workers' refusal for want of credentials is not shown in its place."""
    missing = Problem(reason="SecretNotFound", message="there is no Secret keys", mount="m")
    refused = Problem(reason="AccessDenied", message="refused", mount="m")
    failed = report(index=IndexStatus(state=IndexState.FAILED, problems=(refused,)))
    found = plan(secret_problems=(missing,), reports={"w0": failed})

    assert condition(found) == ("False", "SecretNotFound")
    assert status(found)["mounts"][0]["problem"] == "SecretNotFound"
    assert [(event.type, event.reason) for event in found.events] == [("Warning", "SecretNotFound")]


def test_problem_of_a_former_spec_is_not_shown() -> None:
    """A worker that has not seen the new spec yet says nothing about it."""
    refused = Problem(reason="NoSuchBucket", message="no such bucket", mount="m")
    stale = report(index=IndexStatus(state=IndexState.FAILED, problems=(refused,)), dataset_revision="old")

    assert condition(plan(reports={"w0": stale}), "SourceReachable") == ("Unknown", "Listing")


def test_claim_of_someone_else_is_not_taken() -> None:
    """A claim of that name which is not ours stays as it is, and the Dataset says so."""
    foreign = {"metadata": {"name": "demo"}, "status": {"phase": "Bound"}}
    found = plan(claim=foreign)

    assert [manifest["kind"] for manifest in found.apply] == ["Secret"]
    assert condition(found) == ("False", "NameTaken")


def test_volume_of_a_lost_claim_binds_again() -> None:
    """A claim that was deleted and made again has another UID: the volume forgets the old one."""
    released = {"metadata": {"name": "forebay-d"}, "status": {"phase": "Released"}}

    assert [patch.body["spec"]["claimRef"]["uid"] for patch in plan(volume=released).patches] == [None]


def deleting(**changes: Any) -> Plan:
    """The plan for a Dataset that someone has deleted."""
    annotations = changes.pop("annotations", {})
    subject = dataset(
        finalizers=["forebay.io/volume"], deletionTimestamp="2026-01-01T00:00:00Z", annotations=annotations
    )
    return plan(subject, **changes)


def test_deletion_waits_for_pods_and_names_them() -> None:
    """Nothing is taken from under a pod; the condition says which one and what to do."""
    found = deleting(pods=("trainer-0",))

    assert found.delete == ()
    assert not found.release
    assert condition(found) == ("False", "InUse")
    assert "trainer-0" in next(c["message"] for c in status(found)["conditions"] if c["type"] == "Ready")


def test_deletion_takes_claim_and_volume_then_lets_go() -> None:
    """The Dataset goes only when neither is left."""
    first = deleting()
    volume_left = deleting(claim=None)
    last = deleting(claim=None, volume=None)

    assert [ref.kind for ref in first.delete] == ["PersistentVolumeClaim", "PersistentVolume"]
    assert not first.release
    assert not volume_left.release
    assert last.delete == ()
    assert last.release


def test_deletion_leaves_a_foreign_claim_alone() -> None:
    """Someone else's claim of that name is no reason to wait."""
    found = deleting(claim={"metadata": {"name": "demo"}}, volume=None)

    assert found.delete == ()
    assert found.release


def test_deletion_can_be_forced() -> None:
    """The annotation gives the Dataset up although pods still use it; the volume is deleted all the same."""
    found = deleting(pods=("stuck",), annotations={"forebay.io/force-delete": "true"})

    assert found.release
    assert len(found.delete) == 2


def test_the_claim_waits_until_the_volume_was_looked_at() -> None:
    """Else Kubernetes binds them only in its volume controller's next round."""
    fresh = plan(claim=None, volume=None)
    pending = plan(claim=None, volume={"metadata": {}, "status": {"phase": "Pending"}})
    available = plan(claim=None, volume={"metadata": {}, "status": {"phase": "Available"}})

    assert [one["kind"] for one in fresh.apply] == ["Secret", "PersistentVolume"]
    assert [one["kind"] for one in pending.apply] == ["Secret", "PersistentVolume"]
    assert [one["kind"] for one in available.apply] == ["Secret", "PersistentVolume", "PersistentVolumeClaim"]
