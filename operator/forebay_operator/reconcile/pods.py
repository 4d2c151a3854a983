"""What a worker's pod says about itself, and why it does not serve yet."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from forebay_operator.desired.worker_set import CONTAINER
from forebay_operator.model import meta


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a pod does not run: a stable reason and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPod:
    """The facts of a worker's pod that decisions look at."""

    name: str
    uid: str
    address: str
    node: str
    running: bool
    ready: bool
    unready_since: datetime | None
    deleting: bool
    dataset_uid: str
    access_revision: str
    trouble: Trouble | None

    @property
    def ordinal(self) -> int:
        """The pod's number in its StatefulSet."""
        tail = self.name.rpartition("-")[2]
        return int(tail) if tail.isdigit() else 0


_WAITING = {
    "ImagePullBackOff": "ImageUnavailable",
    "ErrImagePull": "ImageUnavailable",
    "InvalidImageName": "ImageUnavailable",
    "ErrImageNeverPull": "ImageUnavailable",
    "CrashLoopBackOff": "WorkersCrashing",
    "CreateContainerConfigError": "WorkersNotStarting",
    "CreateContainerError": "WorkersNotStarting",
}


def _unscheduled(name: str, message: str) -> Trouble:
    if "Insufficient ephemeral-storage" in message:
        advice = "lower the quota of the SSD or HDD tiers, or add nodes with more disk"
        return Trouble(reason="QuotaExceedsDisk", message=f"{name} fits on no node ({message}): {advice}")
    if "Insufficient memory" in message:
        advice = "lower the quota of the Memory tier, or add nodes with more memory"
        return Trouble(reason="QuotaExceedsMemory", message=f"{name} fits on no node ({message}): {advice}")
    return Trouble(reason="WorkersUnschedulable", message=f"{name} fits on no node: {message}")


def _trouble(name: str, status: dict[str, Any]) -> Trouble | None:
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return _unscheduled(name, condition.get("message", ""))
    if status.get("phase") == "Failed":
        return Trouble(reason="WorkersCrashing", message=f"{name} has failed: {status.get('message', 'no message')}")
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _WAITING:
            message = waiting.get("message") or waiting["reason"]
            return Trouble(reason=_WAITING[waiting["reason"]], message=f"{name}: {message}")
    return None


def read(raw: dict[str, Any]) -> WorkerPod:
    """The facts of a pod as the API server shows it."""
    metadata, status = raw["metadata"], raw.get("status", {})
    ready = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {"status": "False"})
    since = ready.get("lastTransitionTime")
    containers = {container["name"]: container for container in status.get("containerStatuses", ())}
    return WorkerPod(
        name=metadata["name"],
        uid=metadata["uid"],
        address=status.get("podIP", ""),
        node=raw.get("spec", {}).get("nodeName", ""),
        running="running" in containers.get(CONTAINER, {}).get("state", {}),
        ready=ready["status"] == "True",
        unready_since=datetime.fromisoformat(since) if since and ready["status"] != "True" else None,
        deleting="deletionTimestamp" in metadata,
        dataset_uid=metadata.get("labels", {}).get(meta.LABEL_DATASET_UID, ""),
        access_revision=metadata.get("annotations", {}).get(meta.ANNOTATION_ACCESS_REVISION, ""),
        trouble=_trouble(metadata["name"], status),
    )
