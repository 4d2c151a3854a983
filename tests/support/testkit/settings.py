"""What a test cluster is called, where it lives and which addresses it takes: one frozen dataclass."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

DEFAULT_NAME = "forebay-testkit"
DEFAULT_NETWORK = IPv4Network("10.199.0.0/16")
KUBERNETES_VERSION = "1.34.4"
COREDNS_VERSION = "1.11.4"
MINIO_VERSION = "0.0.0-20260212201848-7aac2a2c5b7c"
VERSITYGW_VERSION = "1.8.0"
CSI_SANITY_VERSION = "5.6.0"
MAX_NODES = 100
PREFIX_LENGTH = 8
"""Linux allows 15 characters for an interface; the rest is for the node's number."""


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where downloads and builds are kept between clusters, as the XDG base directories ask for."""
    base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "forebay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The names and addresses of one cluster. Two clusters with different names and networks live side by side."""

    name: str = DEFAULT_NAME
    """Names the cgroup, the iptables rules and the marker in each process's environment."""
    prefix: str = "fbtk"
    """Begins the name of each interface and network namespace."""
    network: IPv4Network = DEFAULT_NETWORK
    """A /16: the first /24 is the nodes' bridge, the second quarter Services, the upper half pods (a /24 per node)."""
    state_dir: Path = Path("/run") / DEFAULT_NAME
    """Process records, certificates, sockets, kubeconfig. Gone after a reboot, as the processes are."""
    data_dir: Path = Path("/var/lib") / DEFAULT_NAME
    """What needs a disk: images, volumes, etcd, buckets, logs."""
    node_names: tuple[str, ...] = ("node-1", "node-2")
    api_port: int = 26443
    etcd_port: int = 22379
    hpa_sync_seconds: int = 5

    @property
    def bridge(self) -> str:
        """The bridge on the host that nodes and store are plugged into."""
        return f"{self.prefix}0"

    @property
    def node_subnet(self) -> IPv4Network:
        """The bridge's subnet."""
        return next(self.network.subnets(new_prefix=24))

    @property
    def bridge_address(self) -> IPv4Address:
        """The host's own address on the bridge: the control plane listens here only."""
        return self.node_subnet[1]

    @property
    def store_address(self) -> IPv4Address:
        """The S3 server's address."""
        return self.node_subnet[5]

    @property
    def service_cidr(self) -> IPv4Network:
        """The range of Service addresses."""
        return list(self.network.subnets(new_prefix=18))[1]

    @property
    def pod_cidr(self) -> IPv4Network:
        """The range of all pods."""
        return list(self.network.subnets(new_prefix=17))[1]

    @property
    def api_service_address(self) -> IPv4Address:
        """The address of the Service `kubernetes`: always the first of the range."""
        return self.service_cidr[1]

    @property
    def dns_address(self) -> IPv4Address:
        """The address of the cluster's DNS Service."""
        return self.service_cidr[10]

    @property
    def api_url(self) -> str:
        """Where the API server answers."""
        return f"https://{self.bridge_address}:{self.api_port}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state_dir / "kubeconfig"

    def node_address(self, index: int) -> IPv4Address:
        """The address of node number `index` (from 1) on the bridge."""
        self._check_index(index)
        return self.node_subnet[10 + index]

    def node_pod_cidr(self, index: int) -> IPv4Network:
        """The pods' range on node number `index`."""
        self._check_index(index)
        return list(self.pod_cidr.subnets(new_prefix=24))[index]

    def _check_index(self, index: int) -> None:
        """Refuse a number that has no address."""
        if not 1 <= index <= MAX_NODES:
            raise ValueError(f"a node's number lies between 1 and {MAX_NODES}, not {index}")


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """The default cluster, or the one that FOREBAY_TESTKIT_NAME and FOREBAY_TESTKIT_NETWORK (a /16) name."""
    name = environ.get("FOREBAY_TESTKIT_NAME", DEFAULT_NAME)
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise ValueError(f"FOREBAY_TESTKIT_NAME takes letters, digits and dashes, not {name!r}")
    network = IPv4Network(environ.get("FOREBAY_TESTKIT_NETWORK", str(DEFAULT_NETWORK)))
    if network.prefixlen != 16:
        raise ValueError(f"FOREBAY_TESTKIT_NETWORK must be a /16, not {network}")
    if name == DEFAULT_NAME:
        return Settings(network=network)
    prefix = name[:PREFIX_LENGTH]
    if prefix[-1:].isdigit():
        raise ValueError(
            f"the first {PREFIX_LENGTH} characters of FOREBAY_TESTKIT_NAME must not end in a digit: {name!r}"
        )
    return Settings(
        name=name,
        prefix=prefix,
        network=network,
        state_dir=Path("/run") / name,
        data_dir=Path("/var/lib") / name,
    )
