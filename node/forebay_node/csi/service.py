"""The CSI services of a node, and its registration: requests in, ``Volumes`` called."""

import logging
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BoolValue

from forebay import _version
from forebay_node.csi import csi_pb2, registration_pb2
from forebay_node.csi.calls import unary
from forebay_node.csi.capabilities import check
from forebay_node.inline import InlineVolumes, is_inline
from forebay_node.tier_folders import TierFolders, is_tier
from forebay_node.volumes import VolumeRequest, Volumes
from forebay_protocol.volume import DRIVER_NAME

MAX_VOLUMES = 1000
"""Datasets that one node may have mounted; each costs a process."""

_log = logging.getLogger(__name__)


class IdentityService:
    """Who this driver is."""

    def info(self, _request: csi_pb2.GetPluginInfoRequest) -> csi_pb2.GetPluginInfoResponse:
        """Name and version."""
        return csi_pb2.GetPluginInfoResponse(name=DRIVER_NAME, vendor_version=_version.__version__)

    def capabilities(self, _request: csi_pb2.GetPluginCapabilitiesRequest) -> csi_pb2.GetPluginCapabilitiesResponse:
        """A controller answers at the same socket."""
        service = csi_pb2.PluginCapability.Service
        capability = csi_pb2.PluginCapability(service=service(type=service.CONTROLLER_SERVICE))
        return csi_pb2.GetPluginCapabilitiesResponse(capabilities=[capability])

    def probe(self, _request: csi_pb2.ProbeRequest) -> csi_pb2.ProbeResponse:
        """Whoever answers is ready."""
        return csi_pb2.ProbeResponse(ready=BoolValue(value=True))

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """The gRPC service."""
        return grpc.method_handlers_generic_handler(
            "csi.v1.Identity",
            {
                "GetPluginInfo": unary(csi_pb2.GetPluginInfoRequest, self.info),
                "GetPluginCapabilities": unary(csi_pb2.GetPluginCapabilitiesRequest, self.capabilities),
                "Probe": unary(csi_pb2.ProbeRequest, self.probe),
            },
        )


class NodeService:
    """Volumes on this node."""

    def __init__(self, node_name: str, volumes: Volumes, inline: InlineVolumes, tiers: TierFolders) -> None:
        """``node_name`` is the CSI node id."""
        self._node_name = node_name
        self._volumes = volumes
        self._inline = inline
        self._tiers = tiers

    def stage(self, request: csi_pb2.NodeStageVolumeRequest) -> csi_pb2.NodeStageVolumeResponse:
        """Mount once for the node."""
        check([request.volume_capability] if request.HasField("volume_capability") else [])
        self._volumes.stage(
            VolumeRequest(
                volume_id=request.volume_id, staging_path=request.staging_target_path,
                context=request.volume_context, secrets=request.secrets,
            )
        )  # fmt: skip
        return csi_pb2.NodeStageVolumeResponse()

    def unstage(self, request: csi_pb2.NodeUnstageVolumeRequest) -> csi_pb2.NodeUnstageVolumeResponse:
        """Unmount and forget."""
        self._volumes.unstage(request.volume_id, request.staging_target_path)
        return csi_pb2.NodeUnstageVolumeResponse()

    def publish(self, request: csi_pb2.NodePublishVolumeRequest) -> csi_pb2.NodePublishVolumeResponse:
        """Bind for one pod: a dataset, of a claim or of its own, or a folder of the node for a cache worker."""
        check([request.volume_capability] if request.HasField("volume_capability") else [])
        if is_tier(request.volume_context):
            with self._volumes.at(request.volume_id, request.target_path) as target:
                self._tiers.publish(request.volume_context, target)
            return csi_pb2.NodePublishVolumeResponse()
        if is_inline(request.volume_context):
            self._inline.publish(request.volume_context, request.secrets, request.target_path)
            return csi_pb2.NodePublishVolumeResponse()
        volume = VolumeRequest(
            volume_id=request.volume_id, staging_path=request.staging_target_path,
            context=request.volume_context, secrets=request.secrets,
        )  # fmt: skip
        self._volumes.publish(volume, request.target_path)
        return csi_pb2.NodePublishVolumeResponse()

    def unpublish(self, request: csi_pb2.NodeUnpublishVolumeRequest) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Unbind and remove the target."""
        self._volumes.unpublish(request.volume_id, request.target_path)
        return csi_pb2.NodeUnpublishVolumeResponse()

    def stats(self, request: csi_pb2.NodeGetVolumeStatsRequest) -> csi_pb2.NodeGetVolumeStatsResponse:
        """Bytes and files; all of them are used, for nothing can be written."""
        seen = self._volumes.usage(request.volume_id, request.volume_path)
        condition = csi_pb2.VolumeCondition(abnormal=bool(seen.problem), message=seen.problem or "served")
        usage = [
            csi_pb2.VolumeUsage(total=count, used=count, unit=unit)
            for count, unit in ((seen.total_bytes, csi_pb2.VolumeUsage.BYTES), (seen.files, csi_pb2.VolumeUsage.INODES))
        ]
        return csi_pb2.NodeGetVolumeStatsResponse(usage=usage, volume_condition=condition)

    def capabilities(self, _request: csi_pb2.NodeGetCapabilitiesRequest) -> csi_pb2.NodeGetCapabilitiesResponse:
        """Staging, statistics and condition."""
        rpc = csi_pb2.NodeServiceCapability.RPC
        kinds = (rpc.STAGE_UNSTAGE_VOLUME, rpc.GET_VOLUME_STATS, rpc.VOLUME_CONDITION)
        return csi_pb2.NodeGetCapabilitiesResponse(
            capabilities=[csi_pb2.NodeServiceCapability(rpc=rpc(type=kind)) for kind in kinds]
        )

    def info(self, _request: csi_pb2.NodeGetInfoRequest) -> csi_pb2.NodeGetInfoResponse:
        """This node's name; datasets can be mounted anywhere."""
        return csi_pb2.NodeGetInfoResponse(node_id=self._node_name, max_volumes_per_node=MAX_VOLUMES)

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """The gRPC service."""
        return grpc.method_handlers_generic_handler(
            "csi.v1.Node",
            {
                "NodeStageVolume": unary(csi_pb2.NodeStageVolumeRequest, self.stage),
                "NodeUnstageVolume": unary(csi_pb2.NodeUnstageVolumeRequest, self.unstage),
                "NodePublishVolume": unary(csi_pb2.NodePublishVolumeRequest, self.publish),
                "NodeUnpublishVolume": unary(csi_pb2.NodeUnpublishVolumeRequest, self.unpublish),
                "NodeGetVolumeStats": unary(csi_pb2.NodeGetVolumeStatsRequest, self.stats),
                "NodeGetCapabilities": unary(csi_pb2.NodeGetCapabilitiesRequest, self.capabilities),
                "NodeGetInfo": unary(csi_pb2.NodeGetInfoRequest, self.info),
            },
        )


class RegistrationService:
    """How the kubelet learns of this driver."""

    def __init__(self, endpoint: str) -> None:
        """``endpoint`` is the CSI socket as the kubelet sees it."""
        self._endpoint = endpoint

    def info(self, _request: registration_pb2.InfoRequest) -> registration_pb2.PluginInfo:
        """A CSI driver, and where it is."""
        return registration_pb2.PluginInfo(
            type="CSIPlugin", name=DRIVER_NAME, endpoint=self._endpoint, supported_versions=["1.0.0"]
        )

    def status(self, request: registration_pb2.RegistrationStatus) -> registration_pb2.RegistrationStatusResponse:
        """What came of it."""
        if request.plugin_registered:
            _log.info("the kubelet registered the driver")
        else:
            _log.error("the kubelet did not register the driver: %s", request.error)
        return registration_pb2.RegistrationStatusResponse()

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """The gRPC service."""
        return grpc.method_handlers_generic_handler(
            "pluginregistration.Registration",
            {
                "GetInfo": unary(registration_pb2.InfoRequest, self.info),
                "NotifyRegistrationStatus": unary(registration_pb2.RegistrationStatus, self.status),
            },
        )
