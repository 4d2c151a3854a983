"""A control group with a memory limit, as a container has one: who takes more is killed by the kernel."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from testkit import cgroups


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """The group's folder; of cgroup version 1 or 2."""

    folder: Path
    unified: bool

    def entering(self, argv: Sequence[str]) -> list[str]:
        """The command, run within the group from its first instruction."""
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *argv]

    @property
    def oom_kills(self) -> int:
        """How often the kernel has killed a process of the group for memory."""
        file = self.folder / ("memory.events" if self.unified else "memory.oom_control")
        fields = dict(line.split() for line in file.read_text().splitlines())
        return int(fields["oom_kill"])

    @property
    def peak_bytes(self) -> int:
        """The most memory that was ever charged to the group, page cache included."""
        return int((self.folder / ("memory.peak" if self.unified else "memory.max_usage_in_bytes")).read_text())


@contextmanager
def memory_group(name: str, limit: int) -> Iterator[MemoryGroup]:
    """A group of this limit in bytes, removed at the end; its processes must have ended by then."""
    path = PurePosixPath(name)
    cgroups.create(path)
    found = cgroups.with_controllers(cgroups.hierarchies())
    chosen = next(one for one in found if one.unified or "memory" in one.controllers)
    group = MemoryGroup(chosen.root / name, chosen.unified)
    (group.folder / ("memory.max" if chosen.unified else "memory.limit_in_bytes")).write_text(str(limit))
    try:
        yield group
    finally:
        cgroups.remove(path)
