"""Put one mount's parts together and serve it."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forebay.control import ControlClient
from forebay.direct import DirectSources
from forebay.index import Snapshot
from forebay.pool import ConnectionPool
from forebay.reader import ChunkReader
from forebay.revalidation import Revalidation
from forebay.ring import RingHolder, Seeds
from forebay_node.fuse.access import Access
from forebay_node.fuse.files import Files
from forebay_node.fuse.filesystem import FileSystem
from forebay_node.fuse.generations import Generations, poll_interval
from forebay_node.fuse.journal import Journal
from forebay_node.fuse.session import LONGEST_ANSWER, Session
from forebay_node.fuse.tree import Tree
from forebay_node.mounts import current_mounts, set_readahead
from forebay_protocol.ring import Member, Ring
from forebay_protocol.shares import reader_share
from forebay_protocol.wire import ResponseHead

READAHEAD_KB = 4096
DEFAULT_BUDGET = 64 * 1024 * 1024

_RING = "ring"
_SECOND_NOTICE = 1.0
_SOURCE_PATIENCE = 8.0
"""Seconds for a worker to ask a source for a file's version; then somebody else is asked."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSettings:
    """One mount: what it shows, where its workers may be found, and its limits.

    ``node`` is this node's name in the ring; ``folder`` is where the index is kept; ``budget`` bounds the bytes
    fetched ahead; ``patience`` is how many seconds to wait for the first index; with ``resume`` the mount is there and
    lost the server that served it from the same folder.
    """

    access: Access
    seeds: Seeds
    folder: Path
    node: str = ""
    budget: int = DEFAULT_BUDGET
    patience: float = 60.0
    answer_within: float = LONGEST_ANSWER
    resume: bool = False


class Server:
    """One dataset's file system, from the first index to the end of the mount."""

    def __init__(self, settings: MountSettings) -> None:
        """Nothing is asked of anybody yet."""
        access = settings.access
        self._settings = settings
        token = access.trust.token
        self._journal = Journal(settings.folder / "journal", resume=settings.resume)
        self._pool = ConnectionPool(token, observer=self._observe, tls=lambda: access.tls)
        self._ring = RingHolder(
            token, settings.seeds, on_change=self._take_ring, on_answer=access.trust.follow, tls=lambda: access.tls,
        )  # fmt: skip
        self._direct = DirectSources(
            access.document, access.credentials, lambda: reader_share(self._ring.current, access.readers)
        )
        self._reader = ChunkReader(self._ring, self._pool, self._direct, node=settings.node)
        self._revalidation = Revalidation(self._ring, self._contact, self._direct)
        self._generations = Generations(
            settings.folder, access.document.uid, self._ring, settings.seeds, token, access.tls
        )  # fmt: skip

    def _take_ring(self, ring: Ring) -> None:
        self._pool.retain(ring.members)
        self._journal.put(_RING, 0, ring.to_json())

    def _contact(self, member: Member) -> ControlClient:
        access = self._settings.access
        return ControlClient(
            member.address, member.control_port, access.trust.token, timeout=_SOURCE_PATIENCE, tls=access.tls
        )

    def _observe(self, _member: Member, head: ResponseHead) -> None:
        self._ring.saw(head.epoch)
        self._generations.saw(head.generation)

    def prepare(self) -> list[Snapshot]:
        """Get the first index; WorkerUnavailable, with the reason, when there is none in time.

        When resuming nobody is waited for: shown is what the predecessor showed, first what the kernel knows.
        """
        patience = self._settings.patience
        if self._settings.resume:
            for _, (ring,) in self._journal.items(_RING):
                self._ring.offer(Ring.from_json(ring))
            snapshots = self._generations.resumed(patience)
        else:
            snapshots = [self._generations.first(patience)]
        self._ring.start()
        return snapshots

    def serve(self, channels: Sequence[int], snapshots: list[Snapshot], source: str) -> None:
        """Serve the mount of these descriptors until it is unmounted. ``source`` is its name in mountinfo."""
        document = self._settings.access.document
        known, *fresh = snapshots
        tree = Tree(known, document, self._journal)
        files = Files(self._reader, self._settings.budget, self._journal)
        filesystem = FileSystem(tree, files, self._journal, self._revalidation.newest if document.on_open else None)
        session = Session(channels, filesystem, answer_within=self._settings.answer_within)

        def tell(messages: list[bytes], snapshot: Snapshot) -> None:
            session.notify(messages)
            self._generations.told(snapshot)

        def newer(snapshot: Snapshot) -> None:
            messages = tree.replace(snapshot)
            session.notify(messages)
            again = threading.Timer(_SECOND_NOTICE, tell, (messages, snapshot))
            again.daemon = True
            again.start()

        def follow_index() -> None:
            for snapshot in fresh:
                newer(snapshot)
                filesystem.adopt_folders()
            self._generations.follow(poll_interval(document.refresh_seconds), newer)

        filesystem.adopt_folders()
        follow = threading.Thread(target=follow_index, name="index", daemon=True)
        follow.start()
        if self._settings.resume:
            filesystem.ready.set()
        threading.Thread(target=_raise_readahead, args=(filesystem.ready.wait, source), daemon=True).start()
        try:
            session.run()
        finally:
            self._generations.stop()
            follow.join(timeout=5)
            files.close()
            tree.close()
            self.close()
            counters = self._reader.counters
            _log.info(
                "served %d bytes from workers, %d from the store; %d bytes asked for twice",
                counters.worker_bytes, counters.direct_bytes, counters.hedged_bytes,
            )  # fmt: skip

    def close(self) -> None:
        """Close connections and stores."""
        self._ring.close()
        self._pool.close()
        self._direct.close()
        self._journal.close()


def _raise_readahead(wait: Callable[[float], bool], source: str) -> None:
    """The kernel caps a FUSE mount's readahead at 128 KiB until its device is told otherwise."""
    if not wait(30.0):
        return
    for entry in current_mounts():
        if entry.source == source and not set_readahead(entry.device, READAHEAD_KB):
            _log.info("read_ahead_kb of %s cannot be set; reads through mmap will be slower", entry.device)
