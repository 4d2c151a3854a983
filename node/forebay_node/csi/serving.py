"""gRPC servers on unix sockets."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from forebay_node.csi import csi_pb2
from forebay_node.csi.controller import ControllerService
from forebay_node.csi.service import IdentityService, NodeService, RegistrationService
from forebay_node.inline import InlineVolumes
from forebay_node.paths import NodePaths
from forebay_node.tier_folders import TierFolders
from forebay_node.volumes import Volumes

_THREADS = 64
"""A call may wait for an index; the others must not wait for it."""


class Plugin:
    """The CSI socket and, once that answers, the registration socket."""

    def __init__(
        self, node_name: str, paths: NodePaths, volumes: Volumes, inline: InlineVolumes, tiers: TierFolders
    ) -> None:
        """Nothing listens yet."""
        self._paths = paths
        self._csi = grpc.server(ThreadPoolExecutor(_THREADS, "csi"))
        self._csi.add_generic_rpc_handlers(
            (
                IdentityService().handler(),
                ControllerService().handler(),
                NodeService(node_name, volumes, inline, tiers).handler(),
            )
        )
        self._registration = grpc.server(ThreadPoolExecutor(2, "registration"))
        self._registration.add_generic_rpc_handlers((RegistrationService(str(paths.socket)).handler(),))

    def start(self) -> None:
        """Listen; the kubelet asks as soon as the registration socket is there."""
        for server, socket in (
            (self._csi, self._paths.socket),
            (self._registration, self._paths.registration_socket),
        ):
            socket.parent.mkdir(parents=True, exist_ok=True)
            # The kubelet takes notice of a new name, not of a new listener behind an old one.
            socket.unlink(missing_ok=True)
            server.add_insecure_port(f"unix://{socket}")
            server.start()

    def stop(self, grace: float) -> None:
        """Tell the kubelet by taking the sockets away, then let calls under way end."""
        self._paths.registration_socket.unlink(missing_ok=True)
        self._registration.stop(0).wait()
        self._csi.stop(grace).wait()
        self._paths.socket.unlink(missing_ok=True)


def probe(socket: Path, timeout: float) -> bool:
    """Whether the driver behind this socket answers."""
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        call = channel.unary_unary(
            "/csi.v1.Identity/Probe",
            request_serializer=csi_pb2.ProbeRequest.SerializeToString,
            response_deserializer=csi_pb2.ProbeResponse.FromString,
        )
        try:
            answer: csi_pb2.ProbeResponse = call(csi_pb2.ProbeRequest(), timeout=timeout)
        except grpc.RpcError:
            return False
        return answer.ready.value
