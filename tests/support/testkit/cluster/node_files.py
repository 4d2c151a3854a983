"""The configuration files of one node, as text. No I/O."""

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path, PurePosixPath
from typing import Any

PAUSE_IMAGE = "forebay.local/pause:1"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFiles:
    """What the files of a node are made from."""

    address: IPv4Address
    pod_cidr: IPv4Network
    dns_address: IPv4Address
    cgroup: PurePosixPath
    client_ca: str
    runc: Path
    cni_plugins: Path
    cni_config: Path

    def containerd(self) -> str:
        """Containerd's configuration: default paths, since the node has a mount namespace of its own."""
        unused = ["aufs", "btrfs", "devmapper", "zfs"]
        disabled = ", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in unused)
        return f"""version = 2
disabled_plugins = [{disabled}]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE a score below our own would be refused.
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{self.cni_plugins}"
    conf_dir = "{self.cni_config}"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{self.runc}"
      SystemdCgroup = false
"""

    def cni(self) -> str:
        """Routed pods (no bridge inside the node), so that Service addresses work between pods of one node as well."""
        ipam = {
            "type": "host-local",
            "dataDir": "/var/lib/cni/networks",
            "ranges": [[{"subnet": str(self.pod_cidr)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        plugins = [
            {"type": "ptp", "ipMasq": False, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ]
        return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}, indent=1)

    def kubelet(self) -> str:
        """The kubelet's configuration; JSON is YAML."""
        document: dict[str, Any] = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": str(self.address),
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": self.client_ca},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDNS": [str(self.dns_address)],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": str(self.cgroup),
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "volumePluginDir": "/var/lib/kubelet/volumeplugins",
            "resolvConf": "/var/lib/kubelet/resolv.conf",
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
            "serializeImagePulls": False,
        }
        return json.dumps(document, indent=1)
