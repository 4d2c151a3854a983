"""Where workers may run: the Runtime's wishes, the Dataset's nodes, spread over nodes, Exclusive or Shared."""

from typing import Any

from forebay_operator.desired import labels
from forebay_operator.model import meta
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.runtime import Runtime

_HOSTNAME = "kubernetes.io/hostname"


def _both(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Terms that hold when one of each side holds: selector terms are alternatives, so AND is their product."""
    if not left or not right:
        return left or right
    joined = []
    for one in left:
        for other in right:
            term = {}
            for key in ("matchExpressions", "matchFields"):
                requirements = [*one.get(key, ()), *other.get(key, ())]
                if requirements:
                    term[key] = requirements
            joined.append(term)
    return joined


def _node_affinity(given: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    required = given.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
    wanted = dataset.spec.node_affinity and dataset.spec.node_affinity.required
    terms = _both(required, wanted.to_json()["nodeSelectorTerms"] if wanted else [])
    if terms:
        given = {**given, "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return given


def _other_workers(dataset_uid: str, extra: list[dict[str, Any]]) -> dict[str, Any]:
    """Workers of other Datasets, in all namespaces: a UID is unique where names repeat."""
    return {
        "labelSelector": {
            "matchLabels": {meta.LABEL_COMPONENT: meta.WORKER_COMPONENT, meta.LABEL_MANAGED_BY: meta.MANAGED_BY},
            "matchExpressions": [{"key": meta.LABEL_DATASET_UID, "operator": "NotIn", "values": [dataset_uid]}, *extra],
        },
        "namespaceSelector": {},
        "topologyKey": _HOSTNAME,
    }


def _pod_anti_affinity(given: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    exclusive = {"key": meta.LABEL_PLACEMENT, "operator": "In", "values": ["Exclusive"]}
    # Anti-affinity is symmetric for scheduling: an exclusive worker's own term keeps shared ones away as well.
    extra = [] if dataset.spec.placement == "Exclusive" else [exclusive]
    required = [
        *given.get("requiredDuringSchedulingIgnoredDuringExecution", ()),
        _other_workers(dataset.metadata.uid, extra),
    ]
    return {**given, "requiredDuringSchedulingIgnoredDuringExecution": required}


def placement(runtime: Runtime, dataset: Dataset) -> dict[str, Any]:
    """The scheduling part of the pod's spec."""
    given = runtime.spec.affinity or {}
    affinity = {**given, "podAntiAffinity": _pod_anti_affinity(given.get("podAntiAffinity", {}), dataset)}
    node_affinity = _node_affinity(given.get("nodeAffinity", {}), dataset)
    if node_affinity:
        affinity["nodeAffinity"] = node_affinity
    tolerations = [t.to_json() for t in (*(runtime.spec.tolerations or ()), *(dataset.spec.tolerations or ()))]
    spec: dict[str, Any] = {
        "affinity": affinity,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": _HOSTNAME,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels.worker_selector(runtime.metadata.name)},
            }
        ],
    }
    if tolerations:
        spec["tolerations"] = tolerations
    if runtime.spec.node_selector:
        spec["nodeSelector"] = runtime.spec.node_selector
    if runtime.spec.priority_class_name:
        spec["priorityClassName"] = runtime.spec.priority_class_name
    return spec
