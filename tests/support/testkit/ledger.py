"""What we made on this machine, written down before it is made, so that `down` removes it after any interruption."""

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """What a line of the ledger speaks of, in the order of removal."""

    FIREWALL_RULE = "firewall-rule"
    INTERFACE = "interface"
    NETNS = "netns"
    MOUNT = "mount"
    CGROUP = "cgroup"
    FOLDER = "folder"
    SYSCTL = "sysctl"
    """`path=value`, as it was before a kubelet set it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was made or was about to be."""

    kind: Kind
    name: str


class Ledger:
    """An append-only file of entries; a line that a crash cut short is ignored."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "ledger.jsonl"

    def record(self, kind: Kind, name: str) -> None:
        """Write an entry down durably, before the thing is made. Once is enough."""
        if Entry(kind, name) in self.entries():
            return
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "name": name}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self, kind: Kind | None = None) -> list[Entry]:
        """The entries of one kind, or all, oldest first."""
        try:
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = [entry for line in lines if (entry := _parse(line)) is not None]
        return [entry for entry in found if kind is None or entry.kind is kind]


def _parse(line: str) -> Entry | None:
    """One line of the file; None when it is not whole."""
    try:
        document = json.loads(line)
        return Entry(Kind(document["kind"]), str(document["name"]))
    except (ValueError, KeyError, TypeError):
        return None
