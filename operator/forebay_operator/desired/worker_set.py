"""The StatefulSet of a Runtime's workers, fit for Pod Security ``restricted``."""

from typing import Any

from forebay_operator.desired import (
    labels,
    worker_network,
    worker_placement,
    worker_resources,
    worker_sources,
    worker_storage,
)
from forebay_operator.model import meta, names
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.runtime import Runtime
from forebay_protocol import control
from forebay_protocol.volume import CONTROL_PORT, DATA_PORT, WORKER_UID

CONTAINER = "worker"
_GRACE_SECONDS = 30
_LOCKED_DOWN = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def _probe(path: str, period: int, *, encrypted: bool) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "control", "scheme": "HTTPS" if encrypted else "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }


def _container(image: str, runtime: Runtime, dataset: Dataset) -> dict[str, Any]:
    parts, encrypted = worker_storage.storage(runtime), runtime.spec.encrypted
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "forebay_worker"],
        "args": [
            "--id", "$(POD_NAME)", "--access-dir", worker_storage.ACCESS, "--state-dir", worker_storage.STATE,
            "--control-port", str(CONTROL_PORT), "--data-port", str(DATA_PORT), *parts.arguments,
            *(("--tls-dir", worker_storage.TLS) if encrypted else ()),
            *worker_sources.arguments(dataset),
        ],
        "env": [_POD_NAME],
        "ports": [
            {"name": "control", "containerPort": CONTROL_PORT, "protocol": "TCP"},
            {"name": "data", "containerPort": DATA_PORT, "protocol": "TCP"},
        ],
        "resources": worker_resources.resources(runtime.spec),
        "startupProbe": {**_probe(control.HEALTH, 1, encrypted=encrypted), "failureThreshold": 60},
        "livenessProbe": _probe(control.HEALTH, 10, encrypted=encrypted),
        "readinessProbe": _probe(control.READY, 2, encrypted=encrypted),
        "securityContext": _LOCKED_DOWN,
        "volumeMounts": [
            *parts.mounts,
            *worker_sources.mounts(dataset),
            {"name": "access", "mountPath": worker_storage.ACCESS, "readOnly": True},
            *([{"name": "tls", "mountPath": worker_storage.TLS, "readOnly": True}] if encrypted else []),
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own emptyDir
        ],
    }  # fmt: skip


_POD_NAME = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}


def _pod(runtime: Runtime, dataset: Dataset, image: str) -> dict[str, Any]:
    parts = worker_storage.storage(runtime)
    given = runtime.spec.pod_metadata
    metadata: dict[str, Any] = {
        "labels": {
            **((given and given.labels) or {}),
            **labels.common(runtime.metadata.name),
            **labels.worker_selector(runtime.metadata.name),
            meta.LABEL_DATASET_UID: dataset.metadata.uid,
            meta.LABEL_PLACEMENT: dataset.spec.placement,
        }
    }
    if given and given.annotations:
        metadata["annotations"] = given.annotations
    spec: dict[str, Any] = {
        **worker_placement.placement(runtime, dataset),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": runtime.spec.service_account_name or names.worker_set(runtime.metadata.name),
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": WORKER_UID,
            "runAsGroup": WORKER_UID,
            "fsGroup": WORKER_UID,
            # A tier may hold millions of files: only its root is looked at, not each file at each start.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(image, runtime, dataset)],
        "volumes": [
            *parts.volumes,
            *worker_sources.volumes(dataset),
            {
                "name": "access",
                # fsGroup adds the group's read bit: the worker is not the files' owner.
                "secret": {
                    "secretName": names.access_secret(dataset.metadata.name), "optional": True, "defaultMode": 0o400,
                },
            },
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        ],
    }  # fmt: skip
    if runtime.spec.encrypted:
        tls = {"secretName": names.worker_tls(dataset.metadata.name), "defaultMode": 0o400}
        spec["volumes"].append({"name": "tls", "secret": tls})
    return {"metadata": metadata, "spec": spec}


def worker_set(runtime: Runtime, dataset: Dataset, image: str) -> dict[str, Any]:
    """The StatefulSet that the Runtime and its Dataset ask for."""
    parts = worker_storage.storage(runtime)
    spec: dict[str, Any] = {
        "replicas": runtime.spec.replicas,
        "podManagementPolicy": "Parallel",
        "serviceName": names.worker_set(runtime.metadata.name),
        "selector": {"matchLabels": labels.worker_selector(runtime.metadata.name)},
        "template": _pod(runtime, dataset, image),
    }
    if parts.claims:
        spec["volumeClaimTemplates"] = list(parts.claims)
        spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": "Delete", "whenScaled": "Retain"}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": worker_network.metadata(runtime), "spec": spec}
