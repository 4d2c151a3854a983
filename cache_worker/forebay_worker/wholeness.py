"""Compares objects with the store's own digest once all their chunks have arrived.

Ranges carry no checksum. Over TLS the transport protects them; over plain HTTP a bit that flipped on the way is found
here, after it may have been served, and the object's chunks are dropped, to be fetched anew when they are wanted.
"""

import hashlib
import struct
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

import structlog

from forebay.source.base import Digest
from forebay_protocol.errors import ForebayError
from forebay_protocol.keys import BLOCK_SIZE, ChunkKey, ObjectVersion
from forebay_worker.metrics import Metrics
from forebay_worker.store.combining import combine
from forebay_worker.store.tiered import ChunkStore, Lease

RATE = 32 * 1024 * 1024
"""Bytes per second that are read for an MD5, at most; a crc32c is combined and reads nothing."""

_PIECE = 1024 * 1024
_MOST_OBJECTS = 10_000
"""Objects of which something has arrived, and objects that wait for their turn; beyond that the oldest are let go."""

_log = structlog.get_logger()

Digests = Callable[[ObjectVersion], Digest | None]
"""What the store says of an object; None when it says nothing that helps."""


class Wholeness:
    """A background thread over the newest store."""

    def __init__(self, store: Callable[[], ChunkStore | None], digests: Digests, metrics: Metrics) -> None:
        """Nothing has arrived yet."""
        self._store = store
        self._digests = digests
        self._metrics = metrics
        self._wake = threading.Condition()
        self._stopped = False
        self._arrived: OrderedDict[str, set[int]] = OrderedDict()
        self._whole: deque[ObjectVersion] = deque(maxlen=_MOST_OBJECTS)
        self._disputed: OrderedDict[str, bytes] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="wholeness", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def arrived(self, one: ObjectVersion, number: int) -> None:
        """A chunk came from the store and is kept. Objects of one chunk were compared by their source."""
        if one.chunk_count < 2:
            return
        with self._wake:
            numbers = self._arrived.setdefault(one.object_id, set())
            numbers.add(number)
            if len(numbers) == one.chunk_count:
                del self._arrived[one.object_id]
                self._whole.append(one)
                self._wake.notify_all()
            elif len(self._arrived) > _MOST_OBJECTS:
                self._arrived.popitem(last=False)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopped or self._whole)
                if self._stopped:
                    return
                one = self._whole.popleft()
            store = self._store()
            if store is not None and store.dataset == one.dataset:
                self._metrics.whole_objects.labels(self._compare(store, one)).inc()

    def _compare(self, store: ChunkStore, one: ObjectVersion) -> str:
        """What came of it, as the metric names it."""
        try:
            digest = self._digests(one)
        except ForebayError as error:
            _log.info("the store gave no digest", error=error.message)
            return "untold"
        if digest is None:
            return "untold"
        found = self._crc32c(store, one) if digest.algorithm == "crc32c" else self._md5(store, one)
        if found is None:
            return "incomplete"
        if found == digest.value:
            return "matched"
        return self._dispute(store, one, found)

    def _dispute(self, store: ChunkStore, one: ObjectVersion, found: bytes) -> str:
        """Drop the object, unless these very bytes have come before: then it is the digest that is something else."""
        if self._disputed.get(one.object_id) == found:
            _log.warning("the store's digest is not of its bytes", object=one.object_id)
            return "disputed"
        self._disputed[one.object_id] = found
        if len(self._disputed) > _MOST_OBJECTS:
            self._disputed.popitem(last=False)
        _log.warning("an object does not match the store's digest and is dropped", object=one.object_id)
        for lease in self._leases(store, one):
            lease.damaged()
        return "mismatched"

    def _leases(self, store: ChunkStore, one: ObjectVersion) -> Iterator[Lease]:
        """The object's chunks that are here, each held while it is looked at."""
        for number in one.chunks():
            lease = store.lease(ChunkKey(one.object_id, number), touch=False)
            if lease is not None:
                try:
                    yield lease
                finally:
                    lease.release()

    def _crc32c(self, store: ChunkStore, one: ObjectVersion) -> bytes | None:
        pieces: list[tuple[int, int]] = []
        count = 0
        for lease in self._leases(store, one):
            sums = struct.unpack(f">{len(lease.sums) // 4}I", lease.sums)
            pieces += [(one_sum, min(BLOCK_SIZE, lease.length - i * BLOCK_SIZE)) for i, one_sum in enumerate(sums)]
            count += 1
        return combine(pieces).to_bytes(4, "big") if count == one.chunk_count else None

    def _md5(self, store: ChunkStore, one: ObjectVersion) -> bytes | None:
        digest, length, start = hashlib.md5(usedforsecurity=False), 0, time.monotonic()
        for lease in self._leases(store, one):
            for offset in range(0, lease.length, _PIECE):
                piece = lease.read(offset, min(_PIECE, lease.length - offset))
                digest.update(piece)
                length += len(piece)
            with self._wake:
                pause = length / RATE - (time.monotonic() - start)
                if self._wake.wait_for(lambda: self._stopped, timeout=max(0.0, pause)):
                    return None
        return digest.digest() if length == one.size else None

    def stop(self) -> None:
        """Stop after the chunk at hand."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
