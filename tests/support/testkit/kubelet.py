"""A kubelet as the node plugin meets it: its folder, and its calls over the plugin's own sockets."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from forebay_node.csi import csi_pb2
from forebay_node.mounts import current_mounts
from forebay_node.paths import NodePaths
from forebay_protocol.volume import DRIVER_NAME
from testkit.waiting import eventually

Out = TypeVar("Out", bound=Message)

VOLUME = "forebay-uid"
READING = csi_pb2.VolumeCapability(mount={}, access_mode={"mode": "MULTI_NODE_READER_ONLY"})


WRITING = csi_pb2.VolumeCapability(mount={}, access_mode={"mode": "SINGLE_NODE_WRITER"})
"""What the kubelet says of every inline volume."""


def call(socket: Path, method: str, request: Message, answer: type[Out]) -> Out:
    """One unary call at a plugin's socket."""
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        unary = channel.unary_unary(
            method, request_serializer=lambda one: one.SerializeToString(), response_deserializer=answer.FromString
        )
        result: Out = unary(request, timeout=60)
        return result


def publish_inline(
    socket: Path, volume: str, target: Path, context: Mapping[str, str], secrets: Mapping[str, str] | None = None
) -> None:
    """NodePublishVolume of a volume that is part of a pod."""
    request = csi_pb2.NodePublishVolumeRequest(
        volume_id=volume, target_path=str(target), volume_context=context, secrets=secrets or {},
        volume_capability=WRITING,
    )  # fmt: skip
    call(socket, "/csi.v1.Node/NodePublishVolume", request, csi_pb2.NodePublishVolumeResponse)


def unpublish(socket: Path, volume: str, target: Path) -> None:
    """NodeUnpublishVolume."""
    request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume, target_path=str(target))
    call(socket, "/csi.v1.Node/NodeUnpublishVolume", request, csi_pb2.NodeUnpublishVolumeResponse)


class Kubelet:
    """A kubelet's folder, the node plugin that it runs there, and its calls; one volume."""

    def __init__(self, folder: Path, secrets: Mapping[str, str], context: Mapping[str, str]) -> None:
        """``secrets`` are the access Secret's texts, ``context`` the volume's attributes."""
        self.paths = NodePaths(folder)
        self.secrets, self.context = secrets, context
        self.staging = folder / "plugins/kubernetes.io/csi" / DRIVER_NAME / "hash/globalmount"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def target(self, pod: str) -> Path:
        """A pod's path for the volume; its parent exists, as the kubelet makes it."""
        path = self.paths.kubelet / "pods" / pod / "volumes/kubernetes.io~csi/data/mount"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def start(self) -> None:
        """Start the plugin and wait for its registration socket."""
        command = [sys.executable, "-m", "forebay_node", "--node-name=node-a", f"--kubelet-dir={self.paths.kubelet}"]
        command.append("--index-patience=2")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
        eventually(self.paths.registration_socket.exists, timeout=15, what="the plugin listens")

    def end(self) -> None:
        """The plugin is told to end, and ends well."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(timeout=15) == 0, self.log.read_text()

    def kill(self) -> None:
        """The plugin dies, and as in a container every process that it started."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        for state in self.paths.volumes.glob("*/volume.json"):
            os.kill(json.loads(state.read_text())["pid"], signal.SIGKILL)

    def call(self, method: str, request: Message, answer: type[Out], socket: Path | None = None) -> Out:
        """One unary call."""
        return call(socket or self.paths.socket, method, request, answer)

    @property
    def server_pid(self) -> int:
        """The process that serves the only staged volume now."""
        (state,) = self.paths.volumes.glob("*/volume.json")
        return int(json.loads(state.read_text())["pid"])

    def stage(self, **changes: object) -> None:
        """NodeStageVolume; ``changes`` replace fields."""
        fields: dict[str, object] = {
            "volume_id": VOLUME, "staging_target_path": str(self.staging), "secrets": self.secrets,
            "volume_context": self.context, "volume_capability": READING,
        }  # fmt: skip
        request = csi_pb2.NodeStageVolumeRequest(**(fields | changes))  # type: ignore[arg-type]
        self.call("/csi.v1.Node/NodeStageVolume", request, csi_pb2.NodeStageVolumeResponse)

    def unstage(self) -> None:
        """NodeUnstageVolume."""
        request = csi_pb2.NodeUnstageVolumeRequest(volume_id=VOLUME, staging_target_path=str(self.staging))
        self.call("/csi.v1.Node/NodeUnstageVolume", request, csi_pb2.NodeUnstageVolumeResponse)

    def publish(self, target: Path, secrets: Mapping[str, str] | None = None) -> None:
        """NodePublishVolume."""
        request = csi_pb2.NodePublishVolumeRequest(
            volume_id=VOLUME, staging_target_path=str(self.staging), target_path=str(target), readonly=True,
            volume_context=self.context, secrets=secrets or {}, volume_capability=READING,
        )  # fmt: skip
        self.call("/csi.v1.Node/NodePublishVolume", request, csi_pb2.NodePublishVolumeResponse)

    def unpublish(self, target: Path) -> None:
        """NodeUnpublishVolume."""
        unpublish(self.paths.socket, VOLUME, target)

    def stats(self, path: Path) -> csi_pb2.NodeGetVolumeStatsResponse:
        """NodeGetVolumeStats."""
        request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=VOLUME, volume_path=str(path))
        return self.call("/csi.v1.Node/NodeGetVolumeStats", request, csi_pb2.NodeGetVolumeStatsResponse)

    def ours(self) -> list[str]:
        """What is mounted below the kubelet's folder."""
        return [entry.target for entry in current_mounts() if self.paths.kubelet in Path(entry.target).parents]
