"""What the operator tells the node plugin about a volume: the CSI driver's name and its volume-context keys."""

DRIVER_NAME = "csi.forebay.io"

DATASET_UID = "forebay.io/dataset-uid"
DATASET_NAME = "forebay.io/dataset-name"
DATASET_NAMESPACE = "forebay.io/dataset-namespace"
WORKER_SERVICE = "forebay.io/worker-service"
"""DNS name of the workers' headless Service, ``<name>.<namespace>.svc``; control port on every address."""

CONTROL_PORT = 7070
DATA_PORT = 7071
"""The workers' TCP ports: HTTP control and metrics, and the data protocol."""
