"""The ring in force: the newest document that anybody sent, kept over restarts."""

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from forebay_protocol.errors import InvalidRequest
from forebay_protocol.keys import ChunkKey
from forebay_protocol.ring import Layout, Member, MemberState, Ring
from forebay_worker.files import read_document, write_document

_log = structlog.get_logger()


_LIKELY_OWNERS = 4
"""How far down in rank former owners are looked for."""


class Membership:
    """Holds the ring and knows this worker's place in it. Thread-safe."""

    def __init__(self, worker_id: str, path: Path) -> None:
        """Take up the ring that was in force before the restart."""
        self.id = worker_id
        self._path = path
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Ring], None]] = []
        self.ring = Ring(epoch=0)
        kept = read_document(path)
        if kept is not None:
            try:
                self.ring = Ring.from_json(kept)
            except InvalidRequest as error:
                _log.warning("the kept ring is malformed", error=str(error))

    def listen(self, listener: Callable[[Ring], None]) -> None:
        """Call ``listener`` with every newer ring."""
        self._listeners.append(listener)

    def offer(self, ring: Ring) -> int:
        """Take the ring if it is newer; returns the epoch in force."""
        with self._lock:
            if ring.epoch <= self.ring.epoch:
                return self.ring.epoch
            self.ring = ring
            write_document(self._path, ring.to_json())
        _log.info("ring changed", epoch=ring.epoch, members=[member.id for member in ring.members])
        for listener in self._listeners:
            listener(ring)
        return ring.epoch

    @property
    def replicated(self) -> bool:
        """Whether every worker keeps all chunks."""
        return self.ring.layout is Layout.REPLICATED

    def is_member(self) -> bool:
        """Whether the ring names this worker."""
        return self.ring.member(self.id) is not None

    def builder(self) -> Member | None:
        """Who lists the sources: the first active member."""
        return next((member for member in self.ring.members if member.state is MemberState.ACTIVE), None)

    def owner(self, key: ChunkKey) -> Member | None:
        """Who owns a chunk."""
        return self.ring.owner(key)

    def owns(self, key: ChunkKey) -> bool:
        """Whether this worker owns the chunk."""
        owner = self.ring.owner(key)
        return owner is not None and owner.id == self.id

    def others(self, key: ChunkKey) -> list[Member]:
        """Some other members that may have the chunk, likeliest first: by rank, then those that are leaving."""
        ring = self.ring
        ranked = [member for member in ring.ranked(key, _LIKELY_OWNERS) if member.id != self.id]
        leaving = [
            member for member in ring.members if member.state is MemberState.DRAINING and member.id != self.id
        ]  # fmt: skip
        return [*ranked[:1], *leaving, *ranked[1:]]
