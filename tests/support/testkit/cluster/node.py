"""One node: its own network and mount namespace, and in them containerd, kubelet and kube-proxy."""

import json
import signal
import subprocess
import tarfile
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path, PurePosixPath

from testkit import cgroups
from testkit.cluster.machine import Machine
from testkit.cluster.node_files import CONTAINERD_SOCKET, NodeFiles
from testkit.commands import run
from testkit.ledger import Kind
from testkit.processes import Daemon, Identity, attempts, end, running

COMPONENTS = ("containerd", "kubelet", "kube-proxy")
HOLDER = "holder"

# Root is made shared first: what containers mount with Bidirectional propagation must reach the kubelet and other pods.
# Each bound folder gets a peer group of its own, else every mount below it would appear twice.
_SETUP = """
set -e
ready=$1
shift
mount --make-rshared /
while [ $# -gt 0 ]; do
  mount --bind "$1" "$2"
  mount --make-private "$2"
  mount --make-shared "$2"
  shift 2
done
echo $$ > "$ready"
exec sleep infinity
"""

_KERNEL_SETTINGS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
"""What every kubelet sets for the whole machine, to be put back."""


class Node:
    """A node of the cluster. Its processes have the usual paths; on the host they lie below `folder`."""

    def __init__(self, machine: Machine, name: str, index: int) -> None:
        self._machine = machine
        self.name = name
        self.index = index

    @property
    def address(self) -> IPv4Address:
        """The node's own address."""
        return self._machine.settings.node_address(self.index)

    @property
    def pod_cidr(self) -> IPv4Network:
        """The range of its pods."""
        return self._machine.settings.node_pod_cidr(self.index)

    @property
    def netns(self) -> str:
        """The name of its network namespace."""
        return f"{self._machine.settings.prefix}-{self.name}"

    @property
    def folder(self) -> Path:
        """Where its disk lies on the host."""
        return self._machine.settings.data_dir / "nodes" / self.name

    @property
    def _state(self) -> Path:
        """Where its configuration and sockets lie on the host."""
        return self._machine.settings.state_dir / "nodes" / self.name

    @property
    def cgroup(self) -> PurePosixPath:
        """The cgroup of its pods, below the cluster's own."""
        return PurePosixPath(self._machine.settings.name, self.name)

    def binds(self) -> dict[Path, Path]:
        """Which folder of the node lies over which path, in its mount namespace."""
        places = {
            self.folder / "kubelet": "/var/lib/kubelet",
            self.folder / "containerd": "/var/lib/containerd",
            self.folder / "cni": "/var/lib/cni",
            self.folder / "forebay": "/var/lib/forebay",
            self.folder / "log-pods": "/var/log/pods",
            self.folder / "log-containers": "/var/log/containers",
            self._state / "containerd": "/run/containerd",
            self._state / "netns": "/run/netns",
        }
        return {source: Path(target) for source, target in places.items()}

    def up(self, images: Sequence[Path] = ()) -> None:
        """Start what does not run; the images are there before the kubelet asks for them."""
        if self.holder is None:
            # Without its namespaces, what is left of the node cannot be used.
            self.kill()
            self._start_holder()
        self.start("containerd")
        for archive in images:
            self.load_image(archive)
        self.start("kubelet")
        self.start("kube-proxy")

    @property
    def holder(self) -> Identity | None:
        """The process that keeps the mount namespace, once that is set up."""
        there = self._machine.processes.identity(self._role(HOLDER))
        ready = self._state / "ready"
        if there is None or not ready.exists() or ready.read_text().strip() != str(there.pid):
            return None
        return there

    @property
    def running(self) -> bool:
        """Tell whether every process of the node runs."""
        processes = self._machine.processes
        return self.holder is not None and all(processes.identity(self._role(one)) is not None for one in COMPONENTS)

    def start(self, component: str) -> None:
        """Start containerd, kubelet or kube-proxy."""
        commands = {"containerd": self._containerd, "kubelet": self._kubelet, "kube-proxy": self._kube_proxy}
        m = self._machine
        role = self._role(component)
        command = commands[component]()
        path = f"{m.binaries.programs}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
        daemon = Daemon(
            role=role, argv=self.command(command), log=m.log(role), environment={"PATH": path}, group=self.name
        )
        m.processes.start(daemon)
        if component == "containerd":
            self._await_containerd()

    def stop(self, component: str, first: signal.Signals = signal.SIGTERM) -> None:
        """End containerd, kubelet or kube-proxy; pods run on."""
        self._machine.processes.stop(self._role(component), first=first)

    def kill(self) -> None:
        """End the node as a power failure would: all daemons, all pods."""
        groups = (self.cgroup, PurePosixPath(self._machine.settings.name, "system", self.name))
        for _ in attempts(30.0, 0.05):
            ids = set().union(*(cgroups.processes(group) for group in groups))
            left = [identity for pid in ids if (identity := running(pid)) is not None]
            if not left:
                return
            end(left, grace_seconds=5.0, first=signal.SIGKILL)
        raise RuntimeError(f"processes of {self.name} do not end")

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the node's network and mount namespace."""
        return run(self.command(argv), stdin=stdin, timeout=timeout, check=check)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The arguments to run a command in the node. Not `ip netns exec`, which hides the cgroup mounts."""
        holder = self.holder
        if holder is None:
            raise RuntimeError(f"{self.name} does not run")
        return ["nsenter", f"--target={holder.pid}", "--net", "--mount", "--", *argv]

    def images(self) -> dict[str, str]:
        """The images in the node's store: name to digest."""
        listed = self._ctr("images", "list").stdout.splitlines()[1:]
        return {fields[0]: fields[2] for line in listed if len(fields := line.split()) > 2}

    def load_image(self, archive: Path) -> bool:
        """Load an OCI archive unless the same image is there; tell whether it was loaded."""
        wanted = archive_images(archive)
        if wanted and wanted.items() <= self.images().items():
            return False
        self._ctr("images", "import", str(archive.resolve()), timeout=600)
        return True

    def _ctr(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run containerd's client on the kubelet's namespace of images."""
        argv = [str(self._machine.binaries.ctr), "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *words]
        return self.run(argv, timeout=timeout)

    def _role(self, component: str) -> str:
        """The component's name among the cluster's daemons."""
        return f"{self.name}.{component}"

    def remember(self) -> None:
        """Write the node's number down, for later runs and other processes."""
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = self._state / "node.json"
        if not record.exists():
            fresh = record.with_suffix(".new")
            fresh.write_text(json.dumps({"name": self.name, "index": self.index}))
            fresh.rename(record)

    def _start_holder(self) -> None:
        """Make the namespaces and the process that keeps them."""
        m = self._machine
        netns = m.network.ensure_namespace(self.netns, self.index, self.address)
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        run(["nsenter", f"--net={netns}", "--", "/bin/sh", "-c", forward])
        m.ledger.record(Kind.CGROUP, m.settings.name)
        cgroups.create(self.cgroup)
        self._record_kernel_settings()
        arguments: list[str] = []
        for source, target in self.binds().items():
            source.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                m.ledger.record(Kind.FOLDER, str(target))
                target.mkdir(parents=True, exist_ok=True)
            arguments += [str(source), str(target)]
        self._write_files()
        ready = self._state / "ready"
        ready.unlink(missing_ok=True)
        private = ["unshare", "--mount", "--propagation", "private", "--", "/bin/sh", "-c", _SETUP, "sh", str(ready)]
        role = self._role(HOLDER)
        argv = ["nsenter", f"--net={netns}", "--", *private, *arguments]
        m.processes.start(Daemon(role=role, argv=argv, log=m.log(role), group=self.name))
        for _ in attempts(10.0, 0.01):
            if self.holder is not None:
                return
        raise RuntimeError(f"the namespaces of {self.name} do not come up; see {m.log(role)}")

    def _record_kernel_settings(self) -> None:
        """Remember the machine's settings before the first kubelet changes them."""
        if not self._machine.ledger.entries(Kind.SYSCTL):
            for name in _KERNEL_SETTINGS:
                value = Path("/proc/sys", name).read_text().strip()
                self._machine.ledger.record(Kind.SYSCTL, f"{name}={value}")

    def _write_files(self) -> None:
        """Write the configuration of the three daemons."""
        m = self._machine
        files = NodeFiles(
            address=self.address,
            pod_cidr=self.pod_cidr,
            dns_address=m.settings.dns_address,
            cgroup=PurePosixPath("/") / self.cgroup,
            client_ca=m.certificates.path("ca.crt"),
            runc=m.binaries.runc,
            cni_plugins=m.binaries.cni,
            cni_config=self._state / "cni",
        )
        (self._state / "cni").mkdir(exist_ok=True)
        (self._state / "cni" / "10-pods.conflist").write_text(files.cni())
        (self._state / "containerd.toml").write_text(files.containerd())
        (self._state / "kubelet.json").write_text(files.kubelet())
        # Names outside the cluster are nobody's here: an empty file keeps the host's resolvers out of the pods.
        (self.folder / "kubelet" / "resolv.conf").write_text("")

    def _containerd(self) -> list[str]:
        """The command line of containerd."""
        return [str(self._machine.binaries.containerd), "--config", str(self._state / "containerd.toml")]

    def _await_containerd(self) -> None:
        """Wait until containerd answers."""
        for _ in attempts(30.0, 0.05):
            if self.run([str(self._machine.binaries.ctr), "version"], check=False).returncode == 0:
                return
        raise RuntimeError(
            f"containerd of {self.name} does not answer; see {self._machine.log(self._role('containerd'))}"
        )

    def _kubelet(self) -> list[str]:
        """The command line of the kubelet."""
        m = self._machine
        return [
            str(m.binaries.kubernetes / "kubelet"),
            f"--config={self._state / 'kubelet.json'}",
            f"--kubeconfig={m.certificates.node(self.name)}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
        ]

    def _kube_proxy(self) -> list[str]:
        """The command line of kube-proxy; the machine's conntrack settings are left alone."""
        m = self._machine
        return [
            str(m.binaries.kubernetes / "kube-proxy"),
            f"--kubeconfig={m.certificates.path('proxy.kubeconfig')}",
            f"--hostname-override={self.name}",
            f"--bind-address={self.address}",
            f"--cluster-cidr={m.settings.pod_cidr}",
            "--proxy-mode=iptables",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        ]


def archive_images(archive: Path) -> dict[str, str]:
    """The images in an OCI archive that carry a whole name: name to digest."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("index.json")
        if member is None:
            raise ValueError(f"{archive} is no OCI archive")
        index = json.load(member)
    names: dict[str, str] = {}
    for manifest in index.get("manifests", []):
        annotations = manifest.get("annotations", {})
        name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name", "")
        if "/" in name:
            names[name] = str(manifest["digest"])
    return names
