"""The access Secret: all that a worker and the node plugin need to read the Dataset, and to trust each other."""

import base64
import json
from typing import Any

from forebay_operator.desired import labels
from forebay_operator.model import meta, names
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.keys import KeySet
from forebay_protocol.dataset import CREDENTIALS_FILE, DATASET_FILE, KEYS_FILE, Credentials, credentials_to_json


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def access_secret(dataset: Dataset, credentials: dict[str, Credentials], keys: KeySet) -> dict[str, Any]:
    """The Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names.access_secret(dataset.metadata.name),
            "namespace": dataset.metadata.namespace,
            "labels": {**labels.common(dataset.metadata.name), meta.LABEL_DATASET_UID: dataset.metadata.uid},
            "annotations": {meta.ANNOTATION_KEY_ROTATION: keys.note},
            "ownerReferences": [dataset.reference()],
        },
        "type": "Opaque",
        "data": {
            DATASET_FILE: _encode(json.dumps(dataset.document().to_json(), sort_keys=True)),
            CREDENTIALS_FILE: _encode(json.dumps(credentials_to_json(credentials), sort_keys=True)),
            KEYS_FILE: _encode(keys.file),
        },
    }
