"""The Secrets of TLS: the authority, which no pod mounts, and what the workers show."""

from typing import Any

from forebay_operator.desired import labels
from forebay_operator.desired.access import encode
from forebay_operator.model import meta, names
from forebay_operator.model.certificates import Certificates, Pair
from forebay_operator.model.dataset import Dataset
from forebay_protocol.dataset import AUTHORITY_FILE

AUTHORITY_KEY = "ca.key"
CERTIFICATE = "tls.crt"
KEY = "tls.key"
"""Names that the API server knows for Secrets of the type kubernetes.io/tls, and workers for their files."""


def tls_secrets(dataset: Dataset, made: Certificates) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both Secrets. They belong to the Dataset: mounts that trust the authority outlive a Runtime."""
    authority = _secret(dataset, names.authority(dataset.metadata.name), "Opaque")
    worker = _secret(dataset, names.worker_tls(dataset.metadata.name), "kubernetes.io/tls")
    authority["data"] = _data(made.authority, AUTHORITY_FILE, AUTHORITY_KEY)
    worker["data"] = {**_data(made.worker, CERTIFICATE, KEY), AUTHORITY_FILE: encode(made.authority.certificate)}
    return authority, worker


def _data(pair: Pair, certificate: str, key: str) -> dict[str, str]:
    return {certificate: encode(pair.certificate), key: encode(pair.key)}


def _secret(dataset: Dataset, name: str, kind: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": dataset.metadata.namespace,
            "labels": {**labels.common(dataset.metadata.name), meta.LABEL_DATASET_UID: dataset.metadata.uid},
            "ownerReferences": [dataset.reference()],
        },
        "type": kind,
    }
