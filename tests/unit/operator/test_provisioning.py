"""What becomes of claims of StorageClasses, and of the volumes that were made for them."""

from typing import Any

import pytest

from forebay_operator.kube.cache import Cache
from forebay_operator.kube.client import Client
from forebay_operator.kube.observe import Observer
from forebay_operator.model import meta
from forebay_operator.model.dataset import Dataset
from forebay_operator.reconcile import provisioning
from forebay_operator.reconcile.plan import Plan

UID = "11111111-0000-0000-0000-000000000000"
SOURCE = {"source": "s3://bucket", "quota": "1Gi"}


def claim(name: str = "mine", *, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A claim of the class that waits for us."""
    metadata = {
        "name": name, "namespace": "ns", "uid": f"uid-of-{name}", "resourceVersion": "1",
        "annotations": {meta.ANNOTATION_PROVISIONER: "csi.forebay.io", **(annotations or {})},
    }  # fmt: skip
    facts = {"accessModes": ["ReadOnlyMany"], "storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {**facts, **spec}}


def storage_class(parameters: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """The class; of the Dataset ``demo`` unless it has other parameters."""
    given = {"dataset": "demo"} if parameters is None else parameters
    return {"metadata": {"name": "fast"}, "reclaimPolicy": "Delete", "parameters": given, **fields}


def raw_dataset(name: str = "demo", namespace: str = "ns", **metadata: Any) -> dict[str, Any]:
    """A Dataset as the API server shows it."""
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": UID, "resourceVersion": "1", **metadata},
        "spec": {"mounts": [{"name": "m", "source": "s3://bucket"}]},
    }


def plan(subject: dict[str, Any], of: dict[str, Any] | None, *datasets: dict[str, Any]) -> Plan:
    """The plan for a claim."""
    known = {raw["metadata"]["name"]: Dataset.read(raw) for raw in datasets}
    return provisioning.plan_claim(
        provisioning.Observed(claim=subject, storage_class=of, datasets=known, siblings=(subject,))
    )


def problem(made: Plan) -> str:
    """The only event of a plan that writes nothing and is looked at again."""
    assert made.apply == ()
    assert made.requeue_after is not None
    (event,) = made.events
    assert (event.type, event.reason) == ("Warning", "ProvisioningFailed")
    return event.message


def test_a_claim_gets_a_volume_of_its_own() -> None:
    """Read-only, bound to that very claim, of the Dataset that the class names, with the class's reclaim policy."""
    made = plan(claim(), storage_class(reclaimPolicy="Retain"), raw_dataset())

    (volume,) = made.apply
    spec = volume["spec"]
    assert volume["metadata"]["name"] == "pvc-uid-of-mine"
    assert spec["claimRef"]["uid"] == "uid-of-mine"
    assert spec["csi"]["volumeHandle"].startswith(f"{UID}.")
    assert spec["csi"]["nodeStageSecretRef"] == {"name": "demo-forebay-access", "namespace": "ns"}
    assert (spec["accessModes"], spec["csi"]["readOnly"]) == (["ReadOnlyMany"], True)
    assert spec["persistentVolumeReclaimPolicy"] == "Retain"
    assert [event.reason for event in made.events] == ["ProvisioningSucceeded"]


@pytest.mark.parametrize(
    "subject",
    [
        claim(annotations={meta.ANNOTATION_PROVISIONER: "other.example.com"}),
        claim(volumeName="pvc-1"),
        {**claim(), "metadata": {**claim()["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ],
    ids=["of another provisioner", "bound", "going"],
)
def test_other_claims_are_left_alone(subject: dict[str, Any]) -> None:
    """Whoever does not wait for us gets nothing, not even an event."""
    assert plan(subject, storage_class(), raw_dataset()) == Plan()


def test_a_class_that_waits_for_its_first_consumer() -> None:
    """Nothing is made before the scheduler has chosen a node; then it is."""
    waiting = storage_class(volumeBindingMode="WaitForFirstConsumer")

    assert plan(claim(), waiting, raw_dataset()) == Plan()
    chosen = claim(annotations={meta.ANNOTATION_SELECTED_NODE: "node-1"})
    assert len(plan(chosen, waiting, raw_dataset()).apply) == 1


@pytest.mark.parametrize(
    ("subject", "of", "sentence"),
    [
        (claim(accessModes=["ReadWriteOnce"]), storage_class(), "ask for ReadOnlyMany"),
        (claim(accessModes=["ReadOnlyMany", "ReadWriteMany"]), storage_class(), "ask for ReadOnlyMany"),
        (claim(volumeMode="Block"), storage_class(), "Block"),
        (claim(dataSource={"kind": "PersistentVolumeClaim", "name": "x"}), storage_class(), "dataSource"),
        (claim(selector={"matchLabels": {"a": "b"}}), storage_class(), "remove the selector"),
        (claim(), storage_class(mountOptions=["ro", "noatime"]), "'noatime'"),
        (claim(), storage_class({"dataset": "demo", "cache": "big"}), "'cache'"),
        (claim(), storage_class({}), "names a Dataset"),
        (claim(), storage_class({"dataset": "other"}), "no Dataset other in this namespace"),
        (claim(annotations={meta.ANNOTATION_DATASET: "other"}), storage_class(), "asks for other"),
        (claim(), storage_class({"source": "s3://bucket"}), "quota"),
    ],
)
def test_what_is_wrong_is_said(subject: dict[str, Any], of: dict[str, Any], sentence: str) -> None:
    """An event names it and what to do, nothing is made, and it is looked at again."""
    assert sentence in problem(plan(subject, of, raw_dataset()))


def test_a_dataset_that_is_going_is_none() -> None:
    """A volume of it could not be mounted any more."""
    going = raw_dataset(deletionTimestamp="2026-01-01T00:00:00Z")

    assert "is being deleted" in problem(plan(claim(), storage_class(), going))


def test_the_claim_chooses_where_the_class_does_not() -> None:
    """By its annotation."""
    made = plan(claim(annotations={meta.ANNOTATION_DATASET: "demo"}), storage_class({}), raw_dataset())

    assert made.apply[0]["metadata"]["labels"][meta.LABEL_DATASET] == "demo"


def test_no_claim_reaches_another_namespaces_dataset() -> None:
    """The observer shows a claim the Datasets of its own namespace and no other."""
    cache = Cache()
    for raw in (raw_dataset("theirs", "other"), raw_dataset("ours")):
        cache.put("Dataset", raw)
    cache.put("StorageClass", {"metadata": {"name": "fast", "uid": "s"}, "parameters": {"dataset": "theirs"}})

    seen = Observer(Client(None, lambda: True), cache).claim(claim())

    assert set(seen.datasets) == {"ours"}
    assert "no Dataset theirs in this namespace" in problem(provisioning.plan_claim(seen))


def test_a_source_becomes_a_dataset_that_claims_share() -> None:
    """First the Dataset and its Runtime, owned by all claims of the class; the volume once the Dataset is there."""
    first, second = claim("one"), claim("two")
    seen = provisioning.Observed(
        claim=second, storage_class=storage_class(SOURCE), datasets={}, siblings=(first, second)
    )

    made = provisioning.plan_claim(seen)

    assert [one["kind"] for one in made.apply] == ["Dataset", "Runtime"]
    for one in made.apply:
        assert [owner["name"] for owner in one["metadata"]["ownerReferences"]] == ["one", "two"]
    there = raw_dataset("fast", labels={meta.LABEL_STORAGE_CLASS: "fast"})
    assert plan(first, storage_class(SOURCE), there).apply[-1]["kind"] == "PersistentVolume"
    retained = plan(first, storage_class(SOURCE, reclaimPolicy="Retain"), there)
    assert "ownerReferences" not in retained.apply[0]["metadata"]


def test_a_class_does_not_take_a_users_dataset_over() -> None:
    """One of the class's name that it has not made."""
    assert "has not made" in problem(plan(claim(), storage_class(SOURCE), raw_dataset("fast")))


def _volume(phase: str, policy: str = "Delete", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "pvc-1", "uid": "v", "resourceVersion": "1",
            "annotations": {meta.ANNOTATION_PROVISIONED_BY: "csi.forebay.io"}, **metadata,
        },
        "spec": {"persistentVolumeReclaimPolicy": policy, "claimRef": {"name": "mine"}},
        "status": {"phase": phase},
    }  # fmt: skip


def test_a_volume_goes_with_its_claim_unless_it_is_retained() -> None:
    """And not before, also when its Dataset is gone: pods may still have it."""
    observer = Observer(Client(None, lambda: True), Cache())

    assert observer.serves_nobody(_volume("Released"))
    assert not observer.serves_nobody(_volume("Released", "Retain"))
    assert not observer.serves_nobody(_volume("Bound"))


def test_pods_of_made_volumes_use_the_dataset() -> None:
    """They hold it when it is deleted, like those of the Dataset's own claim, and their events lead to it."""
    cache = Cache()
    labels = {meta.LABEL_DATASET: "demo", meta.LABEL_DATASET_NAMESPACE: "ns", meta.LABEL_DATASET_UID: UID}
    cache.put("PersistentVolume", _volume("Bound", labels=labels))
    cache.put("PersistentVolumeClaim", claim(volumeName="pvc-1"))
    pod: dict[str, Any] = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "p", "resourceVersion": "1"},
        "spec": {"nodeName": "n", "volumes": [{"persistentVolumeClaim": {"claimName": "mine"}}]},
        "status": {"phase": "Running"},
    }
    cache.put("Pod", pod)

    source = {"driver": "csi.forebay.io", "volumeAttributes": {"forebay.io/dataset": "small"}}
    other = {"name": "i", "namespace": "ns", "uid": "i", "resourceVersion": "1"}
    cache.put("Pod", {**pod, "metadata": other, "spec": {"nodeName": "n", "volumes": [{"csi": source}]}})

    assert cache.datasets_of(pod) == ["demo"]
    assert Observer(Client(None, lambda: True), cache)._reading_nodes("ns", "small") == 1
    assert Observer(Client(None, lambda: True), cache)._reading_nodes("ns", "demo") == 1
    assert Observer(Client(None, lambda: True), cache)._reading_nodes("ns", "other") == 0
