"""Names derived from a Dataset's or Runtime's name. CEL keeps that name short enough for all of them."""

from forebay_protocol.volume import worker_host


def worker_set(runtime: str) -> str:
    """The StatefulSet, its headless Service, ServiceAccount, NetworkPolicy and PodDisruptionBudget."""
    return f"{runtime}-worker"


def worker_service_host(runtime: str, namespace: str) -> str:
    """DNS name of the workers' headless Service."""
    return worker_host(runtime, namespace)


def authority(dataset: str) -> str:
    """The Secret with the certificate authority of the Dataset's workers; no pod mounts it."""
    return f"{dataset}-forebay-ca"


def worker_tls(dataset: str) -> str:
    """The Secret with the workers' certificate and key."""
    return f"{dataset}-worker-tls"


def access_secret(dataset: str) -> str:
    """The Secret with the dataset document, the credentials and the token key."""
    return f"{dataset}-forebay-access"


def volume(dataset_uid: str) -> str:
    """The PersistentVolume: a UID is unique in the cluster, where ``<namespace>-<name>`` is not."""
    return f"forebay-{dataset_uid}"
