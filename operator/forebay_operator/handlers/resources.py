"""Events of Datasets, Runtimes and DataLoads: a look at the one, and at those that depend on it."""

from typing import Any

import kopf

from forebay_operator.app import App
from forebay_operator.handlers.edge import remember, watch
from forebay_operator.model import names
from forebay_operator.queue import NODE_FOLDERS, Key


def register(registry: kopf.OperatorRegistry) -> None:
    """Watch the custom resources."""
    watch(registry, "Dataset", dataset)
    watch(registry, "Runtime", runtime)
    watch(registry, "DataLoad", dataload)


async def dataset(event: kopf.RawEvent, memo: App, **_: Any) -> None:
    """The Dataset, its Runtime, and its volume, which must not outlive it."""
    metadata = remember(memo, "Dataset", event)["metadata"]
    place = (metadata["namespace"], metadata["name"])
    memo.queue.add(Key("Dataset", *place))
    memo.queue.add(Key("Runtime", *place))
    memo.queue.add(Key("PersistentVolume", "", names.volume(metadata["uid"])))
    memo.queue.add(NODE_FOLDERS)


async def runtime(event: kopf.RawEvent, memo: App, **_: Any) -> None:
    """The Runtime, its Dataset, and the loads that wait for workers."""
    metadata = remember(memo, "Runtime", event)["metadata"]
    place = (metadata["namespace"], metadata["name"])
    memo.queue.add(Key("Runtime", *place))
    memo.queue.add(Key("Dataset", *place))
    memo.queue.add(NODE_FOLDERS)
    for load in memo.cache.tagged("DataLoad", place[0], f"dataset:{place[1]}"):
        memo.queue.add(Key("DataLoad", place[0], load["metadata"]["name"]))


async def dataload(event: kopf.RawEvent, memo: App, **_: Any) -> None:
    """The DataLoad alone."""
    metadata = remember(memo, "DataLoad", event)["metadata"]
    memo.queue.add(Key("DataLoad", metadata["namespace"], metadata["name"]))
