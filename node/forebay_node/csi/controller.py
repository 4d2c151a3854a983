"""The Controller service: volumes made of Datasets, without keeping anything of them.

It serves callers that bring the Dataset's access Secret along. On Kubernetes the operator provisions, by the same
rules (``forebay_protocol.provisioning``), since it can see and make Datasets.
"""

import json
from collections.abc import Mapping
from typing import Any

import grpc

from forebay_node.csi import csi_pb2
from forebay_node.csi.calls import unary
from forebay_node.csi.capabilities import check
from forebay_node.volumes import VolumeNotFound
from forebay_protocol import provisioning
from forebay_protocol.dataset import DATASET_FILE, DatasetDocument
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.provisioning import DatasetIdentity
from forebay_protocol.volume import DATASET_UID


class ControllerService:
    """Makes, forgets and judges volumes."""

    def create(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        """The volume of this name; a Dataset has no size that could be asked for, so none is told."""
        check(request.volume_capabilities)
        if request.HasField("volume_content_source"):
            raise InvalidRequest("a dataset shows its sources; snapshots and clones cannot be had")
        parameters = provisioning.check_parameters(request.parameters)
        if "source" in parameters:
            raise InvalidRequest("only the operator makes Datasets of sources: name a Dataset in 'dataset'")
        made = provisioning.volume(request.name, _dataset(parameters, request.secrets))
        return csi_pb2.CreateVolumeResponse(
            volume=csi_pb2.Volume(volume_id=made.id, volume_context=made.attributes),
        )

    def delete(self, request: csi_pb2.DeleteVolumeRequest) -> csi_pb2.DeleteVolumeResponse:
        """Nothing was kept, and the sources are not ours to delete."""
        if not request.volume_id:
            raise InvalidRequest("the request names no volume")
        return csi_pb2.DeleteVolumeResponse()

    def validate(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Whether a volume can do all that is asked; if not, the answer says what it cannot."""
        if not request.volume_id or not request.volume_capabilities:
            raise InvalidRequest("the request names no volume, or no capability of it")
        uid = provisioning.dataset_uid(request.volume_id)
        if uid is None:
            raise VolumeNotFound(f"there is no volume {request.volume_id}")
        try:
            check(request.volume_capabilities)
            provisioning.check_parameters(request.parameters)
        except InvalidRequest as error:
            return csi_pb2.ValidateVolumeCapabilitiesResponse(message=error.message)
        if request.volume_context.get(DATASET_UID, uid) != uid:
            return csi_pb2.ValidateVolumeCapabilitiesResponse(message="the volume's context is another Dataset's")
        confirmed = csi_pb2.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
        )
        return csi_pb2.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)

    def capabilities(
        self, _request: csi_pb2.ControllerGetCapabilitiesRequest
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Making and deleting volumes; nothing must be attached."""
        rpc = csi_pb2.ControllerServiceCapability.RPC
        capability = csi_pb2.ControllerServiceCapability(rpc=rpc(type=rpc.CREATE_DELETE_VOLUME))
        return csi_pb2.ControllerGetCapabilitiesResponse(capabilities=[capability])

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """The gRPC service."""
        return grpc.method_handlers_generic_handler(
            "csi.v1.Controller",
            {
                "CreateVolume": unary(csi_pb2.CreateVolumeRequest, self.create),
                "DeleteVolume": unary(csi_pb2.DeleteVolumeRequest, self.delete),
                "ValidateVolumeCapabilities": unary(csi_pb2.ValidateVolumeCapabilitiesRequest, self.validate),
                "ControllerGetCapabilities": unary(csi_pb2.ControllerGetCapabilitiesRequest, self.capabilities),
            },
        )


def _dataset(parameters: Mapping[str, str], secrets: Mapping[str, str]) -> DatasetIdentity:
    """The Dataset of the parameters, as the access Secret that came along describes it."""
    name = parameters.get("dataset")
    if not name:
        raise InvalidRequest("the parameter 'dataset' is missing: it names the Dataset that the volume shows")
    try:
        document = DatasetDocument.from_json(json.loads(secrets.get(DATASET_FILE, "")))
    except ValueError:
        # The parser's own message would quote the text.
        raise InvalidRequest(
            f"the request's secrets hold no {DATASET_FILE}: give the Dataset's access Secret"
        ) from None
    if document.name != name:
        raise InvalidRequest(f"the access Secret is not of the Dataset {name}")
    return DatasetIdentity(uid=document.uid, namespace=document.namespace, name=document.name)
