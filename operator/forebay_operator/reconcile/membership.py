"""The ring that a Runtime's pods ask for, as a step from the one that is published."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from forebay_operator.model.runtime import Runtime, WorkerRow
from forebay_operator.reconcile.pods import WorkerPod
from forebay_protocol.control import WorkerStatus
from forebay_protocol.ring import Layout, Member, MemberState, Ring
from forebay_protocol.volume import CONTROL_PORT, DATA_PORT

LOST_AFTER = timedelta(seconds=30)
"""How long a worker may be silent and not ready before others get its share: moving it costs fetching it anew."""


def _lost(pod: WorkerPod, reports: Mapping[str, WorkerStatus], now: datetime) -> bool:
    """Whether neither the kubelet nor the worker itself has been heard for so long that its node is probably gone."""
    silent = not pod.ready and pod.name not in reports
    return silent and pod.unready_since is not None and now - pod.unready_since > LOST_AFTER


def _member(pod: WorkerPod, capacity: int, *, active: bool) -> Member:
    return Member(
        id=pod.name,
        address=pod.address,
        data_port=DATA_PORT,
        control_port=CONTROL_PORT,
        node=pod.node,
        pod_uid=pod.uid,
        # A worker that cannot answer owns nothing: its share would only cost readers a timeout.
        state=MemberState.ACTIVE if active else MemberState.JOINING,
        capacity=capacity,
    )


def _from_row(row: WorkerRow) -> Member:
    return Member(
        id=row.id,
        address=row.address,
        data_port=DATA_PORT,
        control_port=CONTROL_PORT,
        node=row.node or "",
        zone=row.zone or "",
        pod_uid=row.pod_uid,
        state=MemberState(row.state),
        capacity=row.capacity or 1,
    )


def published(runtime: Runtime) -> Ring:
    """The ring that the Runtime's status records; epoch 0 when none was published yet."""
    status = runtime.status
    return Ring(
        epoch=status.ring_epoch or 0,
        layout=Layout(status.layout or Layout.SHARDED),
        members=tuple(_from_row(row) for row in status.workers or ()),
        readers=status.readers or 0,
    )


def wanted(
    runtime: Runtime, pods: Iterable[WorkerPod], reports: Mapping[str, WorkerStatus], now: datetime, readers: int = 0
) -> Ring:
    """The ring for these pods: the published one when nothing has changed, else one of a higher epoch.

    Members that stay keep their order, for the first one holds the index; an epoch is never below one that a
    worker reports, since workers with lasting tiers may remember the ring of a deleted Runtime.
    """
    former = published(runtime)
    capacity = max(1, runtime.spec.quota_bytes >> 20)
    place = {member.pod_uid: position for position, member in enumerate(former.members)}
    candidates = [pod for pod in pods if pod.address and not pod.deleting]
    candidates.sort(key=lambda pod: (place.get(pod.uid, len(place)), pod.ordinal))
    members = tuple(_member(pod, capacity, active=pod.running and not _lost(pod, reports, now)) for pod in candidates)
    layout = Layout(runtime.spec.layout)
    reported = max((report.epoch for report in reports.values()), default=0)
    if (former.layout, former.members, former.readers) == (layout, members, readers) and former.epoch >= reported:
        return former
    return Ring(epoch=max(former.epoch, reported) + 1, layout=layout, members=members, readers=readers)


def row(member: Member, report: WorkerStatus | None) -> WorkerRow:
    """The member as the Runtime's status records it, with what its worker reports."""
    return WorkerRow(
        id=member.id,
        address=member.address,
        pod_uid=member.pod_uid,
        node=member.node or None,
        zone=member.zone or None,
        state=member.state.value,
        capacity=member.capacity,
        epoch=report.epoch if report else None,
        cached_bytes=report.cached_bytes if report else None,
    )
