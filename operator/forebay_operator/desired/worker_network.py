"""What surrounds the workers: their addresses, who may reach them, and how many may be disrupted at once."""

from typing import Any

from forebay_operator.desired import labels
from forebay_operator.model import names
from forebay_operator.model.runtime import Runtime
from forebay_protocol.volume import CONTROL_PORT, DATA_PORT


def metadata(runtime: Runtime) -> dict[str, Any]:
    """Metadata of the objects that carry the worker set's name."""
    return {
        "name": names.worker_set(runtime.metadata.name),
        "namespace": runtime.metadata.namespace,
        "labels": labels.common(runtime.metadata.name),
        "ownerReferences": [runtime.reference()],
    }


def service(runtime: Runtime) -> dict[str, Any]:
    """The headless Service: where clients fetch their first ring document, ready workers or not."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(runtime),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels.worker_selector(runtime.metadata.name),
            "ports": [
                {"name": "control", "port": CONTROL_PORT, "targetPort": "control", "protocol": "TCP"},
                {"name": "data", "port": DATA_PORT, "targetPort": "data", "protocol": "TCP"},
            ],
        },
    }


def service_account(runtime: Runtime) -> dict[str, Any]:
    """An account without rights or token: workers never talk to the API server."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(runtime),
        "automountServiceAccountToken": False,
    }


def network_policy(runtime: Runtime) -> dict[str, Any]:
    """Only the workers' two ports are open, to all: node plugins come from any node, and tokens say who may."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(runtime),
        "spec": {
            "podSelector": {"matchLabels": labels.worker_selector(runtime.metadata.name)},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": CONTROL_PORT, "protocol": "TCP"}, {"port": DATA_PORT, "protocol": "TCP"}]}],
        },
    }


def disruption_budget(runtime: Runtime) -> dict[str, Any]:
    """One worker at a time leaves by eviction."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(runtime),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels.worker_selector(runtime.metadata.name)},
        },
    }
