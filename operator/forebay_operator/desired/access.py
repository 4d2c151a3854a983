"""The access Secret: all that a worker and the node plugin need to read the Dataset, and to trust each other."""

import base64
import json
from typing import Any

from forebay_operator.desired import labels
from forebay_operator.model import meta, names
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.keys import KeySet
from forebay_protocol.dataset import (
    AUTHORITY_FILE,
    CREDENTIALS_FILE,
    DATA_KEY_FILE,
    DATASET_FILE,
    KEYS_FILE,
    READERS_FILE,
    Credentials,
    credentials_to_json,
)


def encode(text: str) -> str:
    """The text as a Secret's data has it."""
    return base64.b64encode(text.encode()).decode()


def access_secret(
    dataset: Dataset,
    credentials: dict[str, Credentials],
    keys: KeySet,
    *,
    authority: str = "",
    readers: int = 0,
    data_key: str = "",
) -> dict[str, Any]:
    """The Secret. ``authority`` is the certificate by which workers are verified, empty where they speak no TLS.

    ``readers`` is how many nodes read the Dataset; told only where that matters. ``data_key`` encrypts tiers, empty
    where none is encrypted.
    """
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
            DATASET_FILE: encode(json.dumps(dataset.document().to_json(), sort_keys=True)),
            CREDENTIALS_FILE: encode(json.dumps(credentials_to_json(credentials), sort_keys=True)),
            KEYS_FILE: encode(keys.file),
            **({AUTHORITY_FILE: encode(authority)} if authority else {}),
            **({DATA_KEY_FILE: encode(data_key)} if data_key else {}),
            **({READERS_FILE: encode(str(readers))} if dataset.limited else {}),
        },
    }
