"""What a volume is asked to be able to do, and whether a dataset is."""

from collections.abc import Iterable

from forebay_node.csi.csi_pb2 import VolumeCapability
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.provisioning import refuse_writing


def check(asked: Iterable[VolumeCapability]) -> None:
    """InvalidRequest unless something is asked for, and all of it is a file system that is read."""
    capabilities = list(asked)
    if any(capability.WhichOneof("access_type") == "block" for capability in capabilities):
        raise InvalidRequest("a dataset is a file system; volumeMode Block cannot be had")
    refuse_writing(_mode(capability) for capability in capabilities)


def _mode(capability: VolumeCapability) -> str:
    """The access mode's name; a number for one that is newer than this code."""
    number = capability.access_mode.mode
    known = VolumeCapability.AccessMode.Mode
    return known.Name(number) if number in known.values() else str(number)
