"""What a volume is that is made on demand: decided alike by the CSI Controller service and by the operator.

Nothing is kept of a volume. Its id says which Dataset it shows, and the same name gives the same id, so that making
a volume twice makes one, and no restart loses any.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from forebay_protocol.errors import InvalidRequest
from forebay_protocol.volume import DATASET_NAME, DATASET_NAMESPACE, DATASET_UID, WORKER_SERVICE, worker_host

READER_MODES = frozenset({"SINGLE_NODE_READER_ONLY", "MULTI_NODE_READER_ONLY", "SINGLE_NODE_WRITER"})
"""The access modes of CSI that a volume has. SINGLE_NODE_WRITER is among them because callers say it where nobody
chose a mode: the kubelet of every inline volume, csi-sanity of every volume. What is mounted is read-only anyway."""

_OF_SOURCE = ("endpoint", "region", "addressing", "credentialsSecret", "replicas", "medium", "quota")
PARAMETERS = ("dataset", "source", *_OF_SOURCE)
"""What a StorageClass may say: a Dataset, or a source of which one is made, with the workers that cache it."""

_FOREIGN = "csi.storage.k8s.io/"
"""Begins the parameters by which provisioners are told of Secrets and claims; they are not meant for the driver."""

_UID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_VOLUME_ID = re.compile(rf"({_UID})(?:\.[0-9a-f]{{16}})?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class DatasetIdentity:
    """Which Dataset a volume shows."""

    uid: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as callers are told of it: its id, and the attributes that come back when it is mounted."""

    id: str
    attributes: Mapping[str, str]


def attributes(dataset: DatasetIdentity) -> dict[str, str]:
    """What the node plugin must know of a Dataset besides its Secret."""
    return {
        DATASET_UID: dataset.uid,
        DATASET_NAME: dataset.name,
        DATASET_NAMESPACE: dataset.namespace,
        WORKER_SERVICE: worker_host(dataset.name, dataset.namespace),
    }


def volume(name: str, dataset: DatasetIdentity) -> Volume:
    """The volume of this name. InvalidRequest when the name is missing or the Dataset's UID is none."""
    if not name:
        raise InvalidRequest("the request names no volume")
    if not re.fullmatch(_UID, dataset.uid):
        raise InvalidRequest(f"the Dataset's UID is none: {dataset.uid[:64]!r}")
    digest = blake2b(name.encode(), digest_size=8).hexdigest()
    return Volume(f"{dataset.uid}.{digest}", attributes(dataset))


def dataset_uid(volume_id: str) -> str | None:
    """UID of the Dataset that a volume shows; None when there can be no volume of this id."""
    found = _VOLUME_ID.fullmatch(volume_id)
    return found[1] if found else None


def refuse_writing(modes: Iterable[str]) -> None:
    """InvalidRequest unless there is at least one access mode and each leaves the volume as it is."""
    asked = sorted(set(modes))
    if not asked:
        raise InvalidRequest("the request names no volume capability")
    foreign = [mode for mode in asked if mode not in READER_MODES]
    if foreign:
        raise InvalidRequest(f"a dataset is read-only, {foreign[0]} cannot be had: ask for ReadOnlyMany")


def check_parameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """The parameters that are meant for us. InvalidRequest for what we do not know and what contradicts itself."""
    ours = {key: value for key, value in parameters.items() if not key.startswith(_FOREIGN)}
    unknown = sorted(set(ours) - set(PARAMETERS))
    if unknown:
        raise InvalidRequest(f"there is no parameter {unknown[0]!r}: known are {', '.join(PARAMETERS)}")
    name = ours.get("dataset")
    if name is not None and (len(ours) > 1 or not _NAME.fullmatch(name)):
        raise InvalidRequest("the parameter 'dataset' is the name of a Dataset, and stands alone")
    if "source" not in ours:
        lone = next((key for key in _OF_SOURCE if key in ours), None)
        if lone is not None:
            raise InvalidRequest(f"the parameter {lone!r} belongs to a 'source', and there is none")
    elif "quota" not in ours or not ours.get("replicas", "1").isdecimal():
        raise InvalidRequest("a 'source' needs a 'quota', say 100Gi, for each of its 'replicas', which are a number")
    return ours
