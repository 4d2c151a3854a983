"""What a claim of a StorageClass gets: a PersistentVolume, and of a class with a source a Dataset and its Runtime."""

from collections.abc import Mapping
from typing import Any

from forebay_operator.desired import labels
from forebay_operator.desired.volume import ACCESS_MODES, csi_source
from forebay_operator.model import meta
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.resource import Object
from forebay_protocol import provisioning
from forebay_protocol.provisioning import DatasetIdentity


def volume_name(claim: Object) -> str:
    """The PersistentVolume, as provisioners name it."""
    return f"pvc-{claim['metadata']['uid']}"


def provisioned_volume(claim: Object, storage_class: Object, dataset: Dataset) -> dict[str, Any]:
    """The volume, bound to its claim from the beginning. Its size is what the claim asks for and means nothing."""
    name, metadata = volume_name(claim), claim["metadata"]
    identity = DatasetIdentity(
        uid=dataset.metadata.uid, namespace=dataset.metadata.namespace, name=dataset.metadata.name
    )
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "labels": {
                **labels.common(dataset.metadata.name),
                meta.LABEL_DATASET_NAMESPACE: dataset.metadata.namespace,
                meta.LABEL_DATASET_UID: dataset.metadata.uid,
            },
            "annotations": {meta.ANNOTATION_PROVISIONED_BY: meta.CSI_DRIVER},
        },
        "spec": {
            "accessModes": ACCESS_MODES,
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": metadata["name"],
                "namespace": metadata["namespace"], "uid": metadata["uid"],
            },
            "csi": csi_source(dataset, provisioning.volume(name, identity)),
            "persistentVolumeReclaimPolicy": reclaim_policy(storage_class),
            "storageClassName": storage_class["metadata"]["name"],
            "volumeMode": "Filesystem",
        },
    }  # fmt: skip


def reclaim_policy(storage_class: Object) -> str:
    """What becomes of a volume whose claim is gone."""
    return str(storage_class.get("reclaimPolicy", "Delete"))


def of_source(
    storage_class: Object, parameters: Mapping[str, str], namespace: str, claims: tuple[Object, ...]
) -> tuple[dict[str, Any], ...]:
    """The Dataset and the Runtime that all claims of a class share in one namespace, and that bear its name.

    They go with the last of the ``claims``, unless the class retains what it makes.
    """
    name = storage_class["metadata"]["name"]
    metadata: dict[str, Any] = {
        "name": name, "namespace": namespace,
        "labels": {meta.LABEL_MANAGED_BY: meta.MANAGED_BY, meta.LABEL_STORAGE_CLASS: name},
    }  # fmt: skip
    if reclaim_policy(storage_class) == "Delete":
        metadata["ownerReferences"] = [_owner(claim) for claim in claims]
    mount: dict[str, Any] = {"name": "source", "source": parameters["source"], "path": "/"}
    mount |= {key: parameters[key] for key in ("endpoint", "region", "addressing") if key in parameters}
    if "credentialsSecret" in parameters:
        mount["credentialsSecretRef"] = {"name": parameters["credentialsSecret"]}
    tier = {"medium": parameters.get("medium", "SSD"), "quota": parameters["quota"]}
    specs = {
        "Dataset": {"mounts": [mount]},
        "Runtime": {"replicas": int(parameters.get("replicas", "1")), "tiers": [tier]},
    }
    return tuple(
        {"apiVersion": meta.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
        for kind, spec in specs.items()
    )


def _owner(claim: Object) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim["metadata"]["name"],
        "uid": claim["metadata"]["uid"],
    }  # fmt: skip
