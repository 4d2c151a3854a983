"""Control groups of version 1 and 2: a record of what runs where that the kernel keeps, even when we are killed."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup hierarchy."""

    root: Path
    unified: bool
    controllers: frozenset[str]


def parse_mounts(mountinfo: str) -> list[Hierarchy]:
    """The hierarchies in /proc/self/mountinfo."""
    found: dict[Path, Hierarchy] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) < 5 or len(tail) < 3 or tail[0] not in {"cgroup", "cgroup2"}:
            continue
        root = Path(fields[4])
        options = frozenset(tail[2].split(",")) - {"rw", "ro"}
        found[root] = Hierarchy(root, tail[0] == "cgroup2", options if tail[0] == "cgroup" else frozenset())
    return list(found.values())


def with_controllers(found: list[Hierarchy]) -> list[Hierarchy]:
    """Those that hold controllers: a cgroup2 beside version 1 has none, though runc makes groups in it too."""
    return [one for one in found if not one.unified] or found


def hierarchies() -> list[Hierarchy]:
    """The hierarchies of this machine."""
    return parse_mounts(Path("/proc/self/mountinfo").read_text())


def create(name: PurePosixPath) -> None:
    """Make the group in each hierarchy, with the controllers that a kubelet needs."""
    for hierarchy in with_controllers(hierarchies()):
        folder = hierarchy.root
        for part in name.parts:
            if hierarchy.unified:
                _delegate(folder)
            folder /= part
            folder.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.controllers:
                _inherit_cpuset(folder)
        if hierarchy.unified:
            _delegate(folder)


def _delegate(folder: Path) -> None:
    """Hand every controller of version 2 down to the groups below."""
    for controller in (folder / "cgroup.controllers").read_text().split():
        (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpuset(folder: Path) -> None:
    """Version 1 starts a cpuset empty, and an empty one takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = folder / name
        if file.exists() and not file.read_text().strip():
            file.write_text((folder.parent / name).read_text())


def leaf_for_daemons(name: PurePosixPath) -> Path:
    """Make the group that our own daemons run in, in one hierarchy; return the file that takes a process in."""
    found = with_controllers(hierarchies())
    chosen = next((one for one in found if one.unified or "pids" in one.controllers), None)
    if chosen is None:
        raise RuntimeError("no cgroup hierarchy with the pids controller is mounted")
    folder = chosen.root.joinpath(*name.parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "cgroup.procs"


def groups(name: PurePosixPath) -> list[Path]:
    """The group and those below it in every hierarchy, deepest first."""
    found: list[Path] = []
    for hierarchy in hierarchies():
        top = hierarchy.root.joinpath(*name.parts)
        if top.is_dir():
            found.extend(Path(folder) for folder, _, _ in os.walk(top, topdown=False))
    return found


def processes(name: PurePosixPath) -> set[int]:
    """The ids of all processes in the group and below."""
    ids: set[int] = set()
    for folder in groups(name):
        try:
            ids.update(int(line) for line in (folder / "cgroup.procs").read_text().split())
        except OSError:
            # The group vanished while we looked (ENOENT, or ENODEV on an open file): nothing runs in it.
            continue
    return ids


def remove(name: PurePosixPath) -> list[Path]:
    """Remove the group and those below; return what the kernel still holds."""
    for folder in groups(name):
        try:
            folder.rmdir()
        except OSError:
            # Busy: reported below.
            continue
    return groups(name)
