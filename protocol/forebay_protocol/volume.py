"""What the operator tells the node plugin about a volume: the CSI driver's name and its volume-context keys."""

DRIVER_NAME = "csi.forebay.io"

DATASET_UID = "forebay.io/dataset-uid"
DATASET_NAME = "forebay.io/dataset-name"
DATASET_NAMESPACE = "forebay.io/dataset-namespace"
WORKER_SERVICE = "forebay.io/worker-service"
"""DNS name of the workers' headless Service, ``<name>.<namespace>.svc``; control port on every address."""


DATASET = "forebay.io/dataset"
"""Attribute of an inline volume of a pod: the name of a Dataset of the pod's namespace."""


def worker_host(dataset: str, namespace: str) -> str:
    """That name: what a dataset's workers are reached by, and what their certificate is for."""
    return f"{dataset}-worker.{namespace}.svc"


CONTROL_PORT = 7070
DATA_PORT = 7071
"""The workers' TCP ports: HTTP control and metrics, and the data protocol."""

TIER_PATH = "forebay.io/tier-path"
RUNTIME_UID = "forebay.io/runtime-uid"
"""Attributes of a worker's inline volume: a folder of the node for one tier, and the Runtime that it caches for."""

WORKER_UID = 65532
"""User and group of the worker's process, and of its folders on nodes."""

TIER_FOLDERS = ("chunks", "state")
"""What the node plugin prepares in a worker's folder: the tier, and the worker's state beside the first lasting one."""

NODE_NAMESPACE = "forebay-node"
RUNTIMES_CONFIG_MAP = "forebay-runtimes"
RUNTIMES_FILE = "runtimes.json"
"""The ConfigMap, in the node plugin's namespace, and its file: an object of Runtime UIDs and their replicas. Folders
of nodes that no Runtime in it claims are removed."""
