"""PersistentVolume and -Claim of a Dataset, bound to each other without a provisioner.

The capacity is a fixed number that means nothing: a bucket has no size limit, and the number of a bound claim
could not follow the bucket.
"""

from typing import Any

from forebay_operator.desired import labels
from forebay_operator.model import meta, names
from forebay_operator.model.dataset import Dataset
from forebay_protocol.provisioning import DatasetIdentity, Volume, attributes

CAPACITY = "1Pi"
ACCESS_MODES = ["ReadOnlyMany"]


def persistent_volume(dataset: Dataset) -> dict[str, Any]:
    """The PersistentVolume; cluster-scoped, so labels tell whose it is."""
    name, namespace, uid = dataset.metadata.name, dataset.metadata.namespace, dataset.metadata.uid
    identity = DatasetIdentity(uid=uid, namespace=namespace, name=name)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": names.volume(uid),
            "labels": {
                **labels.common(name), meta.LABEL_DATASET_NAMESPACE: namespace, meta.LABEL_DATASET_UID: uid,
            },
        },
        "spec": {
            "accessModes": ACCESS_MODES,
            "capacity": {"storage": CAPACITY},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name, "namespace": namespace},
            "csi": csi_source(dataset, Volume(uid, attributes(identity))),
            "persistentVolumeReclaimPolicy": "Retain",
            "volumeMode": "Filesystem",
        },
    }  # fmt: skip


def csi_source(dataset: Dataset, volume: Volume) -> dict[str, Any]:
    """How the kubelet mounts a volume of a Dataset."""
    access = {"name": names.access_secret(dataset.metadata.name), "namespace": dataset.metadata.namespace}
    return {
        "driver": meta.CSI_DRIVER,
        "volumeHandle": volume.id,
        "readOnly": True,
        "nodeStageSecretRef": access,
        # For pods that come to a node whose plugin was replaced while the volume was staged there.
        "nodePublishSecretRef": access,
        "volumeAttributes": dict(volume.attributes),
    }


def persistent_volume_claim(dataset: Dataset) -> dict[str, Any]:
    """The claim that pods name."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": dataset.metadata.name,
            "namespace": dataset.metadata.namespace,
            "labels": {**labels.common(dataset.metadata.name), meta.LABEL_DATASET_UID: dataset.metadata.uid},
            "ownerReferences": [dataset.reference()],
        },
        "spec": {
            "accessModes": ACCESS_MODES,
            "resources": {"requests": {"storage": CAPACITY}},
            "storageClassName": "",
            "volumeMode": "Filesystem",
            "volumeName": names.volume(dataset.metadata.uid),
        },
    }
