"""Decide what a claim of a StorageClass of ours gets, and what becomes of its volume in the end."""

from collections.abc import Mapping
from dataclasses import dataclass

from forebay_operator.desired.provisioned import of_source, provisioned_volume
from forebay_operator.model import meta
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.resource import Object
from forebay_operator.reconcile.plan import Event, Plan
from forebay_protocol import provisioning
from forebay_protocol.errors import InvalidRequest

_RETRY = 5.0
_MODES = {
    "ReadOnlyMany": "MULTI_NODE_READER_ONLY",
    "ReadWriteOnce": "SINGLE_NODE_MULTI_WRITER",
    "ReadWriteOncePod": "SINGLE_NODE_SINGLE_WRITER",
    "ReadWriteMany": "MULTI_NODE_MULTI_WRITER",
}
"""Kubernetes' access modes under CSI's names, those of a driver that tells one writer from many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was seen.

    ``storage_class`` is None as long as it is not known; ``datasets`` are those of the claim's namespace by name;
    ``siblings`` are the claims of this class there that stay, this one among them.
    """

    claim: Object
    storage_class: Object | None
    datasets: Mapping[str, Dataset]
    siblings: tuple[Object, ...]


def is_ours(claim: Object) -> bool:
    """Whether a claim waits for this provisioner."""
    annotations = claim["metadata"].get("annotations") or {}
    return (
        annotations.get(meta.ANNOTATION_PROVISIONER) == meta.CSI_DRIVER
        and not claim["spec"].get("volumeName")
        and "deletionTimestamp" not in claim["metadata"]
    )


def plan_claim(seen: Observed) -> Plan:
    """A volume for the claim, or an event that says what is wrong; looked at again until it is right."""
    if not is_ours(seen.claim) or seen.storage_class is None or _waits_for_a_pod(seen.claim, seen.storage_class):
        return Plan()
    try:
        return _provision(seen, seen.storage_class)
    except InvalidRequest as error:
        return Plan(events=(Event("Warning", "ProvisioningFailed", error.message),), requeue_after=_RETRY)


def _waits_for_a_pod(claim: Object, storage_class: Object) -> bool:
    """Whether the scheduler has yet to choose a node; any will do then."""
    chosen = claim["metadata"]["annotations"].get(meta.ANNOTATION_SELECTED_NODE)
    return storage_class.get("volumeBindingMode") == "WaitForFirstConsumer" and not chosen


def _provision(seen: Observed, storage_class: Object) -> Plan:
    _refuse_what_cannot_be(seen.claim, storage_class)
    parameters = provisioning.check_parameters(storage_class.get("parameters") or {})
    if "source" not in parameters:
        dataset = _named(seen, parameters.get("dataset", ""))
        made: tuple[Object, ...] = ()
    else:
        made = _of_source(seen, storage_class, parameters)
        found = seen.datasets.get(storage_class["metadata"]["name"])
        if found is None:
            return Plan(apply=made, requeue_after=_RETRY)
        dataset = found
    volume = provisioned_volume(seen.claim, storage_class, dataset)
    message = f"the volume {volume['metadata']['name']} shows the Dataset {dataset.metadata.name}"
    return Plan(
        apply=(*made, volume), events=(Event("Normal", "ProvisioningSucceeded", message),), requeue_after=_RETRY
    )


def _refuse_what_cannot_be(claim: Object, storage_class: Object) -> None:
    spec = claim["spec"]
    if spec.get("volumeMode") == "Block":
        raise InvalidRequest("a dataset is a file system; volumeMode Block cannot be had")
    provisioning.refuse_writing(_MODES.get(mode, mode) for mode in spec.get("accessModes") or ())
    if spec.get("dataSource") or spec.get("dataSourceRef"):
        raise InvalidRequest("a dataset shows its sources; snapshots and clones cannot be had: remove dataSource")
    if spec.get("selector"):
        raise InvalidRequest("a volume is made for each claim: remove the selector")
    options = [option for option in storage_class.get("mountOptions") or () if option != "ro"]
    if options:
        raise InvalidRequest(f"the StorageClass has the mount option {options[0]!r}: only 'ro' is known")


def _named(seen: Observed, of_class: str) -> Dataset:
    """The Dataset of the claim's own namespace that the class names, or else the claim: no other can be reached."""
    wish = seen.claim["metadata"]["annotations"].get(meta.ANNOTATION_DATASET, "")
    if not (of_class or wish):
        raise InvalidRequest(
            f"neither the StorageClass nor the claim names a Dataset: annotate {meta.ANNOTATION_DATASET}"
        )
    if of_class and wish and of_class != wish:
        raise InvalidRequest(f"the StorageClass is for the Dataset {of_class}, the claim's annotation asks for {wish}")
    name = of_class or wish
    dataset = seen.datasets.get(name)
    if dataset is None:
        raise InvalidRequest(f"there is no Dataset {name} in this namespace: create it, or name another one")
    if dataset.deleting:
        raise InvalidRequest(f"the Dataset {name} is being deleted: create it anew, or name another one")
    return dataset


def _of_source(seen: Observed, storage_class: Object, parameters: Mapping[str, str]) -> tuple[Object, ...]:
    name = storage_class["metadata"]["name"]
    live = seen.datasets.get(name)
    if live is not None and live.metadata.labels.get(meta.LABEL_STORAGE_CLASS) != name:
        raise InvalidRequest(f"a Dataset {name} exists that this StorageClass has not made: rename one of them")
    if live is not None and live.deleting:
        raise InvalidRequest(f"the former Dataset {name} is still being deleted")
    return of_source(storage_class, parameters, seen.claim["metadata"]["namespace"], seen.siblings)


def is_provisioned(volume: Object) -> bool:
    """Whether a volume was made for a claim of a class, rather than for a Dataset."""
    annotations = volume["metadata"].get("annotations") or {}
    return annotations.get(meta.ANNOTATION_PROVISIONED_BY) == meta.CSI_DRIVER


def is_over(volume: Object) -> bool:
    """Whether a volume that was made for a claim goes now: the claim has gone, and the class retains nothing."""
    released = volume.get("status", {}).get("phase") in ("Released", "Failed")
    return released and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
