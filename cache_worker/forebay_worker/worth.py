"""What cached chunks are worth: judged anew whenever the ring or the index changes."""

import threading

from forebay_protocol.keys import ChunkKey, ObjectVersion
from forebay_worker.index.keeper import IndexKeeper
from forebay_worker.membership import Membership
from forebay_worker.shell import ChunkShell
from forebay_worker.store.tiered import Judgement


class Appraiser:
    """Judges single chunks on arrival, and all of them in the background when told to."""

    def __init__(self, membership: Membership, index: IndexKeeper, shell: ChunkShell) -> None:
        """Nothing runs before ``start``."""
        self._membership = membership
        self._index = index
        self._shell = shell
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="appraise", daemon=True)

    def judge(self, one: ObjectVersion, number: int) -> Judgement:
        """Whether the newest generation shows the object and this worker owns the chunk."""
        snapshot = self._index.current
        current = snapshot is not None and snapshot.shows(one)
        owned = self._membership.owns(ChunkKey(one.object_id, number))
        return Judgement(current, owned, misplaced=not (owned or self._membership.replicated))

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def want(self) -> None:
        """Judge all chunks anew, soon."""
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopped:
                return
            cache = self._shell.cache
            for key in cache.store.present() if cache is not None else ():
                if self._stopped or self._wake.is_set():
                    break
                if cache is not None:
                    cache.store.judge(key, cache.judge)

    def stop(self) -> None:
        """Stop."""
        self._stopped = True
        self._wake.set()
