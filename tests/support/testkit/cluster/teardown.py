"""Remove a cluster: what its ledger names and what the kernel shows under its names, in the order that lets go."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from testkit import cgroups
from testkit.cluster import network
from testkit.cluster.node import Node
from testkit.commands import CommandFailed, run
from testkit.ledger import Kind, Ledger
from testkit.processes import Identity, ProcessTable, attempts, end, marked, running
from testkit.progress import Progress
from testkit.settings import Settings


class Teardown:
    """Works with no part of the cluster running, after any interruption, and as often as one likes."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._ledger = Ledger(settings.state_dir)

    def run(self) -> list[str]:
        """Remove everything; return what is left."""
        self._end_processes()
        self._remove_firewall_rules()
        self._remove_network()
        self._unmount()
        self._remove_cgroups()
        self._restore_kernel_settings()
        left = list(self.leftovers(folders=False))
        if not left:
            self._remove_folders()
            left = list(self.leftovers())
        return left

    def remove_stale(self) -> None:
        """Remove what a cluster left whose records are gone, as after a reboot: its data fit no new certificates."""
        if not self._ledger.entries() and self._settings.data_dir.exists():
            self._progress.say("removing what an earlier cluster left")
            if left := self.run():
                raise RuntimeError(f"an earlier cluster left what cannot be removed: {', '.join(left)}")

    def leftovers(self, *, folders: bool = True) -> Iterator[str]:
        """Look for anything of ours with the ledger closed: by marker, cgroup, prefix, path and comment."""
        s = self._settings
        for pid, command in sorted({**self._unmarked(), **marked(s.name)}.items()):
            yield f"process {pid} ({command})"
        yield from (f"interface {name}" for name in network.links(s.prefix))
        yield from (f"network namespace {name}" for name in network.namespaces(s.prefix))
        yield from (f"mount {path}" for path in _mounts_below(s.state_dir, s.data_dir))
        yield from (f"cgroup {folder}" for folder in cgroups.groups(PurePosixPath(s.name)))
        yield from (f"firewall rule {rule}" for rule in network.firewall_rules(s.name))
        if folders:
            yield from (f"folder {folder}" for folder in (s.state_dir, s.data_dir) if folder.exists())

    def remove_node(self, node: Node) -> None:
        """Remove what one ended node leaves."""
        s = self._settings
        network.Network(s, self._ledger).remove_namespace(node.netns, node.index)
        run(["ip", "route", "delete", str(node.pod_cidr)], check=False)
        for group in (node.cgroup, PurePosixPath(s.name, "system", node.name)):
            cgroups.remove(group)
        for role in ProcessTable(s.name, s.state_dir).roles:
            if role.startswith(f"{node.name}."):
                (s.state_dir / "processes" / role).unlink()
        for folder in (node.folder, s.state_dir / "nodes" / node.name):
            self._remove_tree(folder)
        for file in (s.state_dir / "certificates").glob(f"{node.name}.*"):
            file.unlink()

    def _unmarked(self) -> dict[int, str]:
        """Processes in our cgroups: containers do not carry the marker."""
        found: dict[int, str] = {}
        for pid in cgroups.processes(PurePosixPath(self._settings.name)):
            if running(pid) is not None:
                try:
                    found[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
                except OSError:
                    # It ended while we looked.
                    continue
        return found

    def _end_processes(self) -> None:
        """End daemons, shims and containers; new ones may appear until the last shim is gone."""
        s = self._settings
        table = ProcessTable(s.name, s.state_dir)
        recorded = {identity for role in table.roles if (identity := table.identity(role)) is not None}
        told: set[int] = set()
        for _ in attempts(30.0, 0.05):
            ids = {**self._unmarked(), **marked(s.name)}
            present = {identity for pid in ids if (identity := running(pid)) is not None}
            present |= {one for one in recorded if running(one.pid) == one}
            if not present:
                break
            if not told:
                self._progress.say(f"ending {len(present)} processes: {_summary(ids)}")
            told |= {one.pid for one in present}
            end(_sorted(present), grace_seconds=3.0, first=signal.SIGKILL)

    def _remove_firewall_rules(self) -> None:
        """Take our own rules out of the host's chains."""
        if shutil.which("iptables") is None:
            return
        for rule in network.firewall_rules(self._settings.name):
            self._progress.say(f"removing firewall rule: {rule[3:]}")
            words = rule.replace('"', "").split()
            self._attempt(["iptables", "-w", "-D", *words[1:]])

    def _remove_network(self) -> None:
        """Remove interfaces and network namespaces."""
        s = self._settings
        recorded = {entry.name for entry in self._ledger.entries(Kind.INTERFACE)}
        for name in sorted(recorded | set(network.links(s.prefix)), reverse=True):
            if network.link_exists(name):
                self._progress.say(f"removing interface {name}")
                self._attempt(["ip", "link", "delete", name])
        recorded = {entry.name for entry in self._ledger.entries(Kind.NETNS)}
        for name in sorted(recorded | set(network.namespaces(s.prefix))):
            if (network.NETNS_DIR / name).exists():
                self._progress.say(f"removing network namespace {name}")
                self._attempt(["ip", "netns", "delete", name])

    def _unmount(self) -> None:
        """Unmount what lies below our folders, and the mount that the first network namespace made."""
        for path in _mounts_below(self._settings.state_dir, self._settings.data_dir):
            self._progress.say(f"unmounting {path}")
            self._attempt(["umount", "--lazy", str(path)])
        for entry in self._ledger.entries(Kind.MOUNT):
            folder = Path(entry.name)
            if network.mounted(folder) and not any(folder.iterdir()):
                self._progress.say(f"unmounting {folder}")
                self._attempt(["umount", str(folder)])

    def _remove_cgroups(self) -> None:
        """Remove the cluster's cgroups; the kernel lets go of them a moment after the last process."""
        name = PurePosixPath(self._settings.name)
        if not cgroups.groups(name):
            return
        self._progress.say(f"removing cgroup {name} in {len(cgroups.hierarchies())} hierarchies")
        for _ in attempts(10.0):
            if not cgroups.remove(name):
                return

    def _restore_kernel_settings(self) -> None:
        """Put back what the kubelets set for the whole machine."""
        for entry in self._ledger.entries(Kind.SYSCTL):
            name, _, value = entry.name.partition("=")
            file = Path("/proc/sys", name)
            if file.read_text().strip() != value:
                self._progress.say(f"restoring {name} to {value}")
                file.write_text(value)

    def _remove_folders(self) -> None:
        """Remove our folders, and those that we made as mount points; the state with the ledger goes last."""
        for entry in reversed(self._ledger.entries(Kind.FOLDER)):
            folder = Path(entry.name)
            if folder.is_dir() and not network.mounted(folder) and not any(folder.iterdir()):
                folder.rmdir()
        for folder in (self._settings.data_dir, self._settings.state_dir):
            self._remove_tree(folder)

    def _remove_tree(self, folder: Path) -> None:
        """Remove a folder, never across a mount."""
        if not folder.exists():
            return
        if mounts := _mounts_below(folder):
            raise RuntimeError(f"not removing {folder}: still mounted below it: {', '.join(map(str, mounts))}")
        self._progress.say(f"removing {folder}")
        shutil.rmtree(folder)

    def _attempt(self, argv: list[str]) -> None:
        """Run a removal; a failure is told, and shows again among the leftovers."""
        try:
            run(argv)
        except CommandFailed as failure:
            self._progress.say(f"  {failure}")


def _mounts_below(*folders: Path) -> list[Path]:
    """The mounts at or below folders, deepest first."""
    points = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in reversed(points) if any(point.is_relative_to(folder) for folder in folders)]


def _summary(commands: dict[int, str]) -> str:
    """Count processes by command: `kubelet, 4 containerd-shim`."""
    counts: dict[str, int] = {}
    for command in commands.values():
        counts[command] = counts.get(command, 0) + 1
    return ", ".join(command if count == 1 else f"{count} {command}" for command, count in sorted(counts.items()))


def _sorted(identities: set[Identity]) -> list[Identity]:
    """Oldest first: what starts others ends before what it started."""
    return sorted(identities, key=lambda one: one.start_ticks)
