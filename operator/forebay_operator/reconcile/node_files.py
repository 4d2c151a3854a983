"""The files that workers have on nodes go with their Runtime: each worker is asked to remove its own before it ends.

Nobody else could: pods that clean nodes would need rights and places that only the workers have.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from forebay_operator.model import conditions
from forebay_operator.model.runtime import Runtime
from forebay_operator.reconcile.plan import Event, WorkerPlace
from forebay_operator.reconcile.pods import WorkerPod

PATIENCE = timedelta(seconds=45)
"""How long workers that do not answer keep their Runtime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What was seen of a Runtime whose workers have to go. ``cleared``: UIDs of pods that have removed their files.

    ``askable``: whether there is still a key to ask workers with.
    """

    runtime: Runtime
    worker_set: dict[str, Any] | None
    pods: tuple[WorkerPod, ...]
    cleared: frozenset[str]
    askable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next step: whom to ask, or that the workers may go, and what people should hear of it."""

    clear: tuple[WorkerPlace, ...] = ()
    done: bool = False
    events: tuple[Event, ...] = ()


def is_going(worker_set: dict[str, Any] | None) -> bool:
    """Whether the StatefulSet makes no pods any more."""
    return worker_set is None or "deletionTimestamp" in worker_set["metadata"]


def next_step(seen: Ending, now: datetime) -> Step:
    """Ask while anybody may still answer, for a bounded time."""
    folders = _uncleared(seen)
    if not folders:
        return Step(done=True)
    more_may_come = bool(seen.pods) or not is_going(seen.worker_set)
    if seen.askable and more_may_come and now - _since(seen.runtime, now) < PATIENCE:
        return Step(
            clear=tuple(
                WorkerPlace(pod.uid, pod.address)
                for pod in seen.pods
                if pod.running and pod.address and pod.uid not in seen.cleared
            )
        )
    message = f"files of the cache may be left on nodes, remove these folders: {', '.join(folders)}"
    return Step(done=True, events=(Event("Warning", "NodeFilesLeft", message),))


def _uncleared(seen: Ending) -> tuple[str, ...]:
    """Folders of pods that have not answered, and of ring members whose pods are gone."""
    nodes = {pod.name: pod.node for pod in seen.pods if pod.node and pod.uid not in seen.cleared}
    names = {pod.name for pod in seen.pods}
    for row in seen.runtime.status.workers or ():
        if row.id not in names and row.pod_uid not in seen.cleared and row.node:
            nodes[row.id] = row.node
    uid = seen.runtime.metadata.uid
    return tuple(
        f"{folder}/{uid}/{name} on {node}"
        for name, node in sorted(nodes.items())
        for folder in seen.runtime.spec.node_folders
    )


def _since(runtime: Runtime, now: datetime) -> datetime:
    """When the end began: the Runtime's deletion, or when its status first said that the Dataset is gone."""
    if runtime.metadata.deletion_timestamp is not None:
        return datetime.fromisoformat(runtime.metadata.deletion_timestamp)
    bound = next((c for c in runtime.status.conditions or () if c.type == conditions.BOUND), None)
    return datetime.fromisoformat(bound.last_transition_time) if bound and bound.status == "False" else now
