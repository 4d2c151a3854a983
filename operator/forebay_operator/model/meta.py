"""Every label, annotation, finalizer and fixed name that the operator puts on objects, each once."""

from forebay_protocol.volume import DRIVER_NAME

GROUP = "data.forebay.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "forebay-operator"

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "forebay"

LABEL_DATASET = "forebay.io/dataset"
"""Name of the Dataset (and, since they share it, of the Runtime) that an object serves."""
LABEL_DATASET_NAMESPACE = "forebay.io/dataset-namespace"
"""On cluster-scoped objects: the namespace of the Dataset."""
LABEL_DATASET_UID = "forebay.io/dataset-uid"
LABEL_PLACEMENT = "forebay.io/placement"
"""On worker pods: Shared or Exclusive, so that others can keep away from exclusive ones."""

ANNOTATION_APPLIED = "forebay.io/applied"
"""Hash of the manifest as last applied: shows a field that we no longer ask for."""
ANNOTATION_ACCESS_REVISION = "forebay.io/access-revision"
"""On worker pods: revision of the access Secret. A changed pod makes the kubelet refresh its volumes at once."""
ANNOTATION_KEY_ROTATION = "forebay.io/key-rotation"
"""On the access Secret: how far the rotation of its keys is."""
ANNOTATION_ROTATE_KEY = "forebay.io/rotate-key"
"""On a Dataset: a value that was not there before asks for a new key, as a restart annotation asks for a restart."""
ANNOTATION_FORCE_DELETE = "forebay.io/force-delete"
"""On a Dataset that is being deleted: ``true`` gives it up although pods still use its volume."""

ANNOTATION_DATASET = "forebay.io/dataset"
"""On a claim of a StorageClass that names none: the Dataset of the claim's namespace that its volume shows."""
LABEL_STORAGE_CLASS = "forebay.io/storage-class"
"""On a Dataset and a Runtime that were made for claims: the StorageClass whose source they cache."""
ANNOTATION_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
ANNOTATION_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
ANNOTATION_SELECTED_NODE = "volume.kubernetes.io/selected-node"
"""Kubernetes' own: on a volume, who made it; on a claim, who is to, and where its first pod will run."""

FINALIZERS = {"Dataset": "forebay.io/volume"}
"""Per kind: a Dataset's volume must go before it does."""

CSI_DRIVER = DRIVER_NAME
WORKER_COMPONENT = "worker"
