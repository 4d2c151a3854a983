"""What of the Dataset's sources the workers mount: claims of the namespace, read-only."""

from typing import Any

from forebay_operator.model.dataset import Dataset

CLAIMS = "/var/lib/forebay/claims"


def volumes(dataset: Dataset) -> list[dict[str, Any]]:
    """The claims as volumes of the pod. The volume itself is read-only, so that the kubelet changes no owners in it."""
    return [
        {"name": f"source-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for number, claim in enumerate(dataset.spec.claims)
    ]


def mounts(dataset: Dataset) -> list[dict[str, Any]]:
    """Each claim in a folder of its own name."""
    return [
        {"name": f"source-{number}", "mountPath": f"{CLAIMS}/{claim}", "readOnly": True}
        for number, claim in enumerate(dataset.spec.claims)
    ]


def arguments(dataset: Dataset) -> list[str]:
    """What tells the worker where the claims are."""
    return ["--claims-dir", CLAIMS] if dataset.spec.claims else []
