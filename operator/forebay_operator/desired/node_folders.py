"""What node plugins are told: which Runtimes may have folders on nodes, so that all other folders can go.

The list is a ConfigMap that the kubelet brings to every node plugin as a file. It says what is, not what happened:
a node that was down when a Runtime went finds out when it is back.
"""

import json
from collections.abc import Iterable
from typing import Any

from forebay_operator.model import meta
from forebay_operator.model.runtime import Runtime
from forebay_protocol.volume import NODE_NAMESPACE, RUNTIMES_CONFIG_MAP, RUNTIMES_FILE


def runtimes_on_nodes(runtimes: Iterable[Runtime], datasets: set[tuple[str, str]]) -> dict[str, Any]:
    """The list. ``datasets`` are namespace and name of those that exist: without its Dataset a cache is of no use."""
    replicas = {
        runtime.metadata.uid: runtime.spec.replicas
        for runtime in runtimes
        if runtime.spec.uses_node_folders
        and not runtime.deleting
        and (runtime.metadata.namespace, runtime.metadata.name) in datasets
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": RUNTIMES_CONFIG_MAP,
            "namespace": NODE_NAMESPACE,
            "labels": {meta.LABEL_MANAGED_BY: meta.MANAGED_BY, meta.LABEL_NAME: meta.MANAGED_BY},
        },
        "data": {RUNTIMES_FILE: json.dumps(replicas, sort_keys=True)},
    }
