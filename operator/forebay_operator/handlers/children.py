"""Events of what we create and of what Datasets depend on: a look at whom it serves."""

from functools import partial
from typing import Any

import kopf

from forebay_operator.app import App
from forebay_operator.handlers.edge import remember, watch
from forebay_operator.model import meta
from forebay_operator.queue import Key

_OF_RUNTIME = ("StatefulSet", "Service", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget")


def register(registry: kopf.OperatorRegistry) -> None:
    """Watch all the kinds."""
    for kind in _OF_RUNTIME:
        watch(registry, kind, partial(child, kind))
    watch(registry, "Secret", secret)
    watch(registry, "PersistentVolumeClaim", claim)
    watch(registry, "PersistentVolume", volume)
    watch(registry, "StorageClass", storage_class)
    watch(registry, "Pod", pod)


async def child(kind: str, event: kopf.RawEvent, memo: App, **_: Any) -> None:
    """A child of a Runtime."""
    metadata = remember(memo, kind, event)["metadata"]
    owner = metadata.get("labels", {}).get(meta.LABEL_DATASET, "")
    memo.queue.add(Key("Runtime", metadata["namespace"], owner))


async def secret(event: kopf.RawEvent, memo: App, **_: Any) -> None:
    """An access Secret of ours, or credentials that Datasets name."""
    metadata = remember(memo, "Secret", event)["metadata"]
    owner = metadata.get("labels", {}).get(meta.LABEL_DATASET)
    if owner:
        memo.queue.add(Key("Dataset", metadata["namespace"], owner))
        memo.queue.add(Key("Runtime", metadata["namespace"], owner))
    for user in memo.cache.tagged("Dataset", metadata["namespace"], f"secret:{metadata['name']}"):
        memo.queue.add(Key("Dataset", metadata["namespace"], user["metadata"]["name"]))


async def claim(event: kopf.RawEvent, memo: App, **_: Any) -> None:
    """A claim: ours, or one that takes a Dataset's name."""
    metadata = remember(memo, "PersistentVolumeClaim", event)["metadata"]
    memo.queue.add(Key("Dataset", metadata["namespace"], metadata["name"]))
    memo.queue.add(Key("PersistentVolumeClaim", metadata["namespace"], metadata["name"]))


async def storage_class(event: kopf.RawEvent, memo: App, **_: Any) -> None:
    """A class that claims may have waited for."""
    name = remember(memo, "StorageClass", event)["metadata"]["name"]
    for waiting in memo.cache.all("PersistentVolumeClaim"):
        if waiting["spec"].get("storageClassName") == name:
            memo.queue.add(Key("PersistentVolumeClaim", waiting["metadata"]["namespace"], waiting["metadata"]["name"]))


async def volume(event: kopf.RawEvent, memo: App, **_: Any) -> None:
    """A volume of ours. Its end is the end of who caches it, too."""
    metadata = remember(memo, "PersistentVolume", event)["metadata"]
    labels = metadata.get("labels", {})
    memo.queue.add(Key("PersistentVolume", "", metadata["name"]))
    place = (labels.get(meta.LABEL_DATASET_NAMESPACE, ""), labels.get(meta.LABEL_DATASET, ""))
    memo.queue.add(Key("Dataset", *place))
    memo.queue.add(Key("Runtime", *place))


async def pod(event: kopf.RawEvent, memo: App, **_: Any) -> None:
    """A worker, or a pod that uses claims."""
    raw = remember(memo, "Pod", event)
    metadata = raw["metadata"]
    labels = metadata.get("labels", {})
    if labels.get(meta.LABEL_COMPONENT) == meta.WORKER_COMPONENT:
        memo.queue.add(Key("Runtime", metadata["namespace"], labels.get(meta.LABEL_DATASET, "")))
    for name in memo.cache.datasets_of(raw):
        memo.queue.add(Key("Dataset", metadata["namespace"], name))
        # Its ring tells how many nodes read.
        memo.queue.add(Key("Runtime", metadata["namespace"], name))
