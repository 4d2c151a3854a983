"""The cluster as a whole: up, down, nodes, kubectl."""

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testkit import binaries, packages
from testkit.artifacts import locked
from testkit.cluster import dns
from testkit.cluster.api import Api, ApiUnavailable, condition
from testkit.cluster.control_plane import ROLES, ControlPlane
from testkit.cluster.machine import Machine, wire
from testkit.cluster.node import Node
from testkit.cluster.node_files import PAUSE_IMAGE
from testkit.cluster.teardown import Teardown
from testkit.commands import run
from testkit.ledger import Ledger
from testkit.oci import ProgramImage, write_archive
from testkit.processes import ProcessTable, attempts
from testkit.progress import Progress
from testkit.settings import COREDNS_VERSION, MAX_NODES, Settings, cache_folder, from_environment

COREDNS_IMAGE = f"forebay.local/coredns:{COREDNS_VERSION}"
_NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class Cluster:
    """One cluster on this machine. Its state is in files and in the kernel: any number of objects may speak for it."""

    def __init__(self, settings: Settings | None = None, progress: Progress | None = None) -> None:
        self.settings = settings or from_environment()
        self.progress = progress or Progress()
        self._wired: Machine | None = None
        self._lock = cache_folder() / f".{self.settings.name}.lock"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.settings.kubeconfig

    @property
    def audit_log(self) -> Path:
        """The API server's audit log: a JSON document per line, each request's metadata."""
        return self._control_plane.audit_log

    @property
    def nodes(self) -> dict[str, Node]:
        """The nodes by name, in order of their numbers."""
        found = []
        for record in (self.settings.state_dir / "nodes").glob("*/node.json"):
            document = json.loads(record.read_text())
            found.append(Node(self._machine, document["name"], document["index"]))
        return {node.name: node for node in sorted(found, key=lambda node: node.index)}

    def up(self) -> None:
        """Start the cluster, or whatever of it does not run; return when all nodes are Ready and names resolve."""
        with locked(self._lock, self._say_waiting):
            if self.healthy():
                self.progress.say("cluster: runs already")
                return
            packages.ensure_commands(packages.COMMANDS, self.progress)
            Teardown(self.settings, self.progress).remove_stale()
            machine = self._machine
            machine.settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            machine.settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
            machine.certificates.ensure()
            machine.network.ensure_bridge()
            with self.progress.step("control plane"):
                self._control_plane.up()
            for name in machine.settings.node_names:
                if name not in self.nodes:
                    self._number(name)
            with self.progress.step(f"nodes {', '.join(self.nodes)}"):
                self._start_nodes(list(self.nodes.values()))
            with self.progress.step("cluster DNS"):
                self._start_dns()

    def down(self) -> list[str]:
        """Remove everything; return what could not be removed."""
        with locked(self._lock, self._say_waiting):
            return Teardown(self.settings, self.progress).run()

    def healthy(self) -> bool:
        """Tell whether all daemons run, all nodes are Ready and DNS is available. Fast: no program is started."""
        if not self.kubeconfig.exists() or not self._known_binaries():
            return False
        nodes = self.nodes
        daemons = all(self._machine.processes.identity(role) is not None for role in ROLES)
        if (
            not daemons
            or not set(self.settings.node_names) <= set(nodes)
            or not all(node.running for node in nodes.values())
        ):
            return False
        try:
            return set(nodes) <= self._api.ready_nodes() and self._dns_available()
        except ApiUnavailable:
            return False

    def kubectl(
        self, *arguments: str, stdin: str | None = None, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator; `check` makes a failure an error with what kubectl said."""
        return run(self.kubectl_command(*arguments), stdin=stdin, timeout=timeout, check=check)

    def kubectl_command(self, *arguments: str) -> list[str]:
        """The argument list of kubectl as administrator, for who starts it himself."""
        return [str(self._machine.binaries.kubectl), f"--kubeconfig={self.kubeconfig}", *arguments]

    def daemons(self) -> dict[str, int | None]:
        """Every daemon that was started, and its process, or None when it does not run."""
        table = ProcessTable(self.settings.name, self.settings.state_dir)
        return {role: identity.pid if (identity := table.identity(role)) else None for role in table.roles}

    def load_image(self, archive: Path) -> list[str]:
        """Load an OCI archive into every node that does not have it; return the nodes that took it."""
        nodes = list(self.nodes.values())
        with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
            loaded = list(pool.map(lambda node: node.load_image(archive), nodes))
        return [node.name for node, new in zip(nodes, loaded, strict=True) if new]

    def add_node(self, name: str, images: tuple[Path, ...] = ()) -> Node:
        """Start a further node, with these OCI archives loaded before it joins; return when it is Ready."""
        with locked(self._lock, self._say_waiting):
            if not _NODE_NAME.fullmatch(name):
                raise ValueError(f"a node's name is a DNS label of at most 40 characters, not {name!r}")
            node = self.nodes.get(name) or self._number(name)
            self._start_nodes([node], images)
            return node

    def remove_node(self, name: str) -> None:
        """End a node as if its machine were switched off, and remove it from the cluster."""
        with locked(self._lock, self._say_waiting):
            node = self.nodes[name]
            node.kill()
            self._api.delete(f"/api/v1/nodes/{name}")
            Teardown(self.settings, self.progress).remove_node(node)

    def restart_apiserver(self) -> None:
        """End the API server and start it again; return when it is ready."""
        self._control_plane.restart_apiserver()

    def stop_control_plane(self, role: str) -> None:
        """End etcd, kube-apiserver, kube-controller-manager or kube-scheduler."""
        self._machine.processes.stop(role)

    def start_control_plane(self, role: str) -> None:
        """Start one of the four again."""
        self._control_plane.start(role)

    @property
    def _machine(self) -> Machine:
        """The parts; made when first needed, since that may build programs."""
        if self._wired is None:
            self._wired = wire(self.settings, binaries.fetch(self.progress), self.progress)
        return self._wired

    @property
    def _api(self) -> Api:
        """Our own client of the API server."""
        return Api(self.settings, self.settings.state_dir / "certificates")

    @property
    def _control_plane(self) -> ControlPlane:
        """The four daemons."""
        return ControlPlane(self._machine, self._api)

    def _say_waiting(self) -> None:
        """Tell why nothing happens."""
        self.progress.say("waiting for another process that starts or removes this cluster")

    def _known_binaries(self) -> bool:
        """Tell whether a question about the cluster can be answered without building anything."""
        return Ledger(self.settings.state_dir).entries() != []

    def _number(self, name: str) -> Node:
        """Give a new node the lowest free number."""
        taken = {node.index for node in self.nodes.values()}
        index = next(number for number in range(1, MAX_NODES + 1) if number not in taken)
        node = Node(self._machine, name, index)
        node.remember()
        return node

    def _start_nodes(self, new: list[Node], images: tuple[Path, ...] = ()) -> None:
        """Start nodes side by side, with the images that every node needs, and wait until they are Ready."""
        own = self._own_images()
        with ThreadPoolExecutor(max_workers=len(new)) as pool:
            list(pool.map(lambda node: self._start_node(node, (*own, *images)), new))
        nodes = {**self.nodes, **{node.name: node for node in new}}
        self._machine.network.route_pods({node.netns: (node.pod_cidr, node.address) for node in nodes.values()})
        self._await_ready({node.name for node in new})

    def _start_node(self, node: Node, images: tuple[Path, ...]) -> None:
        """Start one node; its images are there before the kubelet asks for them."""
        node.up(images)
        self.progress.say(f"  {node.name} ({node.address}): containerd, kubelet and kube-proxy run")

    def _await_ready(self, wanted: set[str], seconds: float = 90.0) -> None:
        """Wait until nodes are Ready; tell each."""
        told: set[str] = set()
        for _ in attempts(seconds):
            ready = self._api.ready_nodes()
            for name in sorted((wanted & ready) - told):
                self.progress.say(f"  {name} is Ready")
            told |= wanted & ready
            if wanted <= ready:
                return
        logs = self.settings.data_dir / "log"
        raise RuntimeError(f"not Ready after {seconds:.0f} s: {', '.join(sorted(wanted - told))}; see {logs}")

    def _own_images(self) -> tuple[Path, ...]:
        """The pause image and CoreDNS, as archives in the cache."""
        programs, folder = self._machine.binaries, cache_folder()
        architecture = binaries.architecture()
        wanted = {
            folder / "pause-1.tar": ProgramImage(
                name=PAUSE_IMAGE,
                program=programs.busybox,
                entrypoint=("/busybox", "sleep", "2147483647"),
                user="65535",
                architecture=architecture,
            ),
            folder / f"coredns-{COREDNS_VERSION}.tar": ProgramImage(
                name=COREDNS_IMAGE,
                program=programs.coredns,
                entrypoint=("/coredns",),
                user="65532",
                architecture=architecture,
            ),
        }
        return tuple(path if path.exists() else write_archive(image, path) for path, image in wanted.items())

    def _start_dns(self) -> None:
        """Apply CoreDNS and wait until it answers."""
        self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(dns.objects(self.settings, COREDNS_IMAGE)))
        for _ in attempts(60.0):
            if self._dns_available():
                return
        said = self.kubectl("-n", "kube-system", "describe", "pods", "-l", "k8s-app=kube-dns", check=False).stdout
        raise RuntimeError(f"CoreDNS does not become available:\n{said[-3000:]}")

    def _dns_available(self) -> bool:
        """Tell whether CoreDNS runs."""
        try:
            return condition(self._api.get("/apis/apps/v1/namespaces/kube-system/deployments/coredns"), "Available")
        except ApiUnavailable:
            return False
