"""The bridge on the host and the network namespaces that are plugged into it. Foreign rules stay as they are."""

import contextlib
import json
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from testkit.commands import run
from testkit.ledger import Kind, Ledger
from testkit.settings import MAX_NODES, Settings

NETNS_DIR = Path("/run/netns")


class AddressesTaken(RuntimeError):
    """The machine uses addresses of our network already."""


class Network:
    """Makes and removes bridge, namespaces and firewall rules of one cluster; each step may be repeated."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._guard = threading.Lock()

    def ensure_bridge(self) -> None:
        """Make the bridge with the host's address on it, and let its traffic pass the host's firewall."""
        s = self._settings
        if not link_exists(s.bridge):
            self._refuse_taken_addresses()
            self._ledger.record(Kind.INTERFACE, s.bridge)
            run(["ip", "link", "add", s.bridge, "type", "bridge"])
        run(["ip", "address", "replace", f"{s.bridge_address}/{s.node_subnet.prefixlen}", "dev", s.bridge])
        run(["ip", "link", "set", s.bridge, "up"])
        for rule in self._firewall_rules():
            # Where Docker or a firewall refuses by default, bridged frames and calls to the API server would be lost.
            if run(["iptables", "-w", "-C", *rule], check=False).returncode != 0:
                self._ledger.record(Kind.FIREWALL_RULE, " ".join(rule))
                run(["iptables", "-w", "-I", *rule])

    def ensure_namespace(self, name: str, number: int, address: IPv4Address) -> Path:
        """Make a network namespace with one cable to the bridge, address on its eth0, default route to the host."""
        s = self._settings
        netns = NETNS_DIR / name
        with self._guard:
            if not mounted(NETNS_DIR):
                # The first `ip netns add` makes it a mount; ours to remove when nobody else uses it.
                self._ledger.record(Kind.MOUNT, str(NETNS_DIR))
            if not mounted(netns):
                self._ledger.record(Kind.NETNS, name)
                netns.unlink(missing_ok=True)
                run(["ip", "netns", "add", name])
        cable = f"{s.prefix}{number}"
        if not link_exists(cable):
            self._ledger.record(Kind.INTERFACE, cable)
            run(["ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name])
        run(["ip", "link", "set", cable, "master", s.bridge, "up"])
        inside = ["ip", "-netns", name]
        run([*inside, "link", "set", "lo", "up"])
        run([*inside, "address", "replace", f"{address}/{s.node_subnet.prefixlen}", "dev", "eth0"])
        run([*inside, "link", "set", "eth0", "up"])
        run([*inside, "route", "replace", "default", "via", str(s.bridge_address)])
        return netns

    def remove_namespace(self, name: str, number: int) -> None:
        """Remove a namespace and its cable."""
        cable = f"{self._settings.prefix}{number}"
        if link_exists(cable):
            run(["ip", "link", "delete", cable])
        if (NETNS_DIR / name).exists():
            run(["ip", "netns", "delete", name])

    def route_pods(self, routes: dict[str, tuple[IPv4Network, IPv4Address]]) -> None:
        """Tell the host and every namespace by which node each range of pods is reached: routes, no translation."""
        for cidr, via in routes.values():
            run(["ip", "route", "replace", str(cidr), "via", str(via), "dev", self._settings.bridge])
        for name in routes:
            for other, (cidr, via) in routes.items():
                if other != name:
                    run(["ip", "-netns", name, "route", "replace", str(cidr), "via", str(via), "dev", "eth0"])

    def route_to_every_node(self, name: str) -> None:
        """Tell a namespace that is no node the way to the pods of any node, also of those that are not there yet.

        So the host need not forward packets, which not every machine does.
        """
        s = self._settings
        routes = [
            f"route replace {s.node_pod_cidr(index)} via {s.node_address(index)} dev eth0"
            for index in range(1, MAX_NODES + 1)
        ]
        run(["ip", "-netns", name, "-batch", "-"], stdin="\n".join(routes) + "\n")

    def _firewall_rules(self) -> Iterator[list[str]]:
        """The rules that we add to the host's chains."""
        mark = ["-m", "comment", "--comment", self._settings.name, "-j", "ACCEPT"]
        yield ["FORWARD", "-i", self._settings.bridge, *mark]
        yield ["FORWARD", "-o", self._settings.bridge, *mark]
        yield ["INPUT", "-i", self._settings.bridge, *mark]

    def _refuse_taken_addresses(self) -> None:
        """Refuse to shadow a network that the machine is in."""
        for route in json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]).stdout or "[]"):
            with contextlib.suppress(ValueError, KeyError):
                other = IPv4Network(route["dst"], strict=False)
                if other.prefixlen > 0 and other.overlaps(self._settings.network):
                    raise AddressesTaken(
                        f"{self._settings.network} overlaps {other} on {route.get('dev')}: "
                        "set FOREBAY_TESTKIT_NETWORK to a free /16, such as 10.77.0.0/16"
                    )


def limit_rate(namespace: str, mbit: int | None) -> None:
    """Limit what a namespace sends through its cable; None takes the limit away. What it receives is not limited."""
    device = ["tc", "-netns", namespace]
    run([*device, "qdisc", "delete", "dev", "eth0", "root"], check=False)
    if mbit is not None:
        run([*device, "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "htb", "default", "10"])
        limit = ["htb", "rate", f"{mbit}mbit", "burst", "128k", "cburst", "128k"]
        run([*device, "class", "add", "dev", "eth0", "parent", "1:", "classid", "1:10", *limit])


def link_exists(name: str) -> bool:
    """Tell whether the host has this interface."""
    return Path("/sys/class/net", name).exists()


def links(prefix: str) -> list[str]:
    """The host's interfaces that a cluster's prefix begins."""
    rest = [link.name for link in Path("/sys/class/net").iterdir() if link.name.startswith(prefix)]
    return sorted(name for name in rest if name[len(prefix) :].isdigit())


def namespaces(prefix: str) -> list[str]:
    """The network namespaces that a cluster's prefix begins."""
    return sorted(file.name for file in NETNS_DIR.glob(f"{prefix}-*")) if NETNS_DIR.is_dir() else []


def firewall_rules(name: str) -> list[str]:
    """The host's rules that carry the cluster's name."""
    listed = run(["iptables", "-w", "-S"], check=False).stdout.splitlines()
    marks = {f"--comment {name} ", f'--comment "{name}" '}
    return [line for line in listed if line.startswith("-A ") and any(mark in f"{line} " for mark in marks)]


def mounted(path: Path) -> bool:
    """Tell whether something is mounted here; `Path.is_mount` takes a bind mount within one file system for none.

    A file in /run/netns that is not mounted is what an interrupted `ip netns add` left.
    """
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(path) for line in mounts)
