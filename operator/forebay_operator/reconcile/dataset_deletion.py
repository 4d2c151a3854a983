"""The end of a Dataset: held while pods read it, then claim, volume and Dataset go, in this order."""

from datetime import datetime
from typing import Any

from forebay_operator.model import conditions, meta
from forebay_operator.model.conditions import fails
from forebay_operator.model.dataset import Dataset
from forebay_operator.reconcile.plan import Plan, Ref, transition

_NAMED_PODS = 10
_RETRY = 5.0


def plan_deletion(
    dataset: Dataset,
    claim: dict[str, Any] | None,
    volume: dict[str, Any] | None,
    pods: tuple[str, ...],
    now: datetime,
) -> Plan:
    """The next step towards the end."""
    if not dataset.held:
        return Plan()
    if pods and not _forced(dataset):
        return _wait_for_pods(dataset, pods, now)
    delete = []
    if claim is not None and _owned(dataset, claim) and not _deleting(claim):
        delete.append(Ref("PersistentVolumeClaim", dataset.metadata.namespace, dataset.metadata.name))
    # A bound volume waits for its claim by itself (kubernetes.io/pv-protection).
    if volume is not None and not _deleting(volume):
        delete.append(Ref("PersistentVolume", "", volume["metadata"]["name"]))
    own_claim = claim is not None and _owned(dataset, claim)
    gone = _forced(dataset) or (not own_claim and volume is None)
    return Plan(delete=tuple(delete), release=gone, requeue_after=None if gone else _RETRY)


def _forced(dataset: Dataset) -> bool:
    return dataset.metadata.annotations.get(meta.ANNOTATION_FORCE_DELETE) == "true"


def _owned(dataset: Dataset, claim: dict[str, Any]) -> bool:
    return any(owner["uid"] == dataset.metadata.uid for owner in claim["metadata"].get("ownerReferences", ()))


def _deleting(raw: dict[str, Any]) -> bool:
    return "deletionTimestamp" in raw["metadata"]


def _wait_for_pods(dataset: Dataset, pods: tuple[str, ...], now: datetime) -> Plan:
    shown = ", ".join(pods[:_NAMED_PODS]) + (f" and {len(pods) - _NAMED_PODS} more" if len(pods) > _NAMED_PODS else "")
    message = (
        f"deletion waits for the pods that use the volume: {shown}; delete them, "
        f"or annotate the Dataset with {meta.ANNOTATION_FORCE_DELETE}=true"
    )
    verdict = fails(conditions.READY, "InUse", message)
    former = dataset.status.conditions or ()
    others = [condition for condition in former if condition.type != conditions.READY]
    judged = conditions.merge(former, [verdict], dataset.metadata.generation, now)
    status = dataset.status.model_copy(update={"phase": "Terminating", "conditions": (*others, *judged)})
    return Plan(status=status.to_json(), events=transition(former, verdict), requeue_after=_RETRY)
