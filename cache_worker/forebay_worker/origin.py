"""The stores behind the dataset's mounts, opened anew when credentials or mounts change."""

import threading
from collections.abc import Callable

from typing_extensions import override

from forebay.limits import Gate
from forebay.source import Digest, Digesting, Grant, Listing, Meter, Source, Streaming, open_source, parse_source
from forebay.source.base import Arrived
from forebay.source.newest import newest
from forebay_protocol.control import Problem
from forebay_protocol.dataset import MountSpec
from forebay_protocol.errors import InvalidRequest, ObjectChanged, ObjectMissing, Overloaded, SourceError
from forebay_protocol.keys import ObjectVersion
from forebay_worker.access import Access
from forebay_worker.metrics import Metrics


class _MeasuredMeter(Meter):
    """Shows what it counts."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    @override
    def requested(self) -> None:
        super().requested()
        self._metrics.origin_requests.inc()

    @override
    def retried(self) -> None:
        super().retried()
        self._metrics.origin_retries.inc()

    @override
    def hedge(self) -> None:
        super().hedge()
        self._metrics.hedged_requests.inc()

    @override
    def received(self, count: int) -> None:
        super().received(count)
        self._metrics.origin_bytes.inc(count)


class Origin:
    """Reads ranges of object versions from the store that the mount names. Thread-safe."""

    def __init__(self, metrics: Metrics, share: Callable[[], float], grant: Grant) -> None:
        """No mounts yet. ``share``: this worker's part of the mounts' limits; ``grant``: what its sources may use."""
        self._share = share
        self._grant = grant
        self._meter = _MeasuredMeter(metrics)
        self._lock = threading.Lock()
        self._sources: dict[str, tuple[Source | InvalidRequest, str]] = {}
        self._problems: dict[str, Problem] = {}

    @property
    def bytes(self) -> int:
        """Bytes of objects that came from the stores."""
        return self._meter.bytes

    def change(self, access: Access) -> None:
        """Open the sources of a new access. Reads under way end with the old ones."""
        opened = {mount.name: self._opened(mount, access) for mount in access.dataset.mounts}
        with self._lock:
            former, self._sources = self._sources, opened
            self._problems.clear()
        _close(former)

    def _opened(self, mount: MountSpec, access: Access) -> tuple[Source | InvalidRequest, str]:
        """A mount's source and key prefix; what is wrong with it is kept for those who use it."""
        credentials = access.credentials.get(mount.name)
        try:
            gate = Gate(mount.limits, self._share)
            source = open_source(mount, credentials, gate, self._grant, self._meter)
            return source, parse_source(mount.source).key_prefix
        except InvalidRequest as error:
            return error, ""

    def source(self, mount: str) -> Source:
        """A mount's store."""
        return self._of(mount)[0]

    def _of(self, mount: str) -> tuple[Source, str]:
        with self._lock:
            if not self._sources:
                raise Overloaded("this worker has no sources yet", retry_after=1.0)
            if mount not in self._sources:
                raise InvalidRequest(f"the dataset has no mount {mount!r}")
            source, prefix = self._sources[mount]
        if isinstance(source, InvalidRequest):
            raise source
        return source, prefix

    def _holding(self, one: ObjectVersion) -> tuple[Source, str]:
        """The source of an object and its mount's prefix; InvalidRequest for what no listing of it can have named."""
        source, prefix = self._of(one.mount)
        if not one.key.startswith(prefix):
            raise InvalidRequest("the key lies outside of its mount")
        if not (one.version.isascii() and one.version.isprintable()):
            # It becomes part of a request to the store.
            raise InvalidRequest("the version is none that a store tells")
        return source, prefix

    def read_into(self, one: ObjectVersion, offset: int, buffer: memoryview, arrived: Arrived) -> None:
        """Fill the buffer from the store; a key outside of the mount's prefix is refused."""
        source, _ = self._holding(one)
        try:
            if isinstance(source, Streaming):
                source.stream_into(one.key, one.version, one.size, offset, buffer, arrived)
            else:
                source.read_into(one.key, one.version, one.size, offset, buffer)
                arrived(len(buffer))
        except SourceError as error:
            self._note(one.mount, None if isinstance(error, ObjectMissing | ObjectChanged) else error)
            raise
        self._note(one.mount, None)

    def newest(self, one: ObjectVersion) -> Listing | None:
        """The object as its store has it now; None when it is gone."""
        return newest(*self._holding(one), one)

    def digest(self, one: ObjectVersion) -> Digest | None:
        """What the store says of a whole object, where that protects more than the transport does."""
        source, _ = self._holding(one)
        return source.digest(one.key, one.version) if isinstance(source, Digesting) else None

    def _note(self, mount: str, error: SourceError | None) -> None:
        """Remember what the store said last; an answer about one object shows that it works."""
        with self._lock:
            if error is None:
                self._problems.pop(mount, None)
            else:
                self._problems[mount] = Problem(reason=error.reason, message=error.message, mount=mount)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The mounts whose store failed the last read."""
        with self._lock:
            return tuple(self._problems.values())

    def probe(self, *, failing_only: bool) -> None:
        """Ask the stores whether they work: it may take long until somebody reads from them."""
        with self._lock:
            mounts = list(self._problems if failing_only else self._sources)
        for mount in mounts:
            try:
                self.source(mount).probe()
            except SourceError as error:
                self._note(mount, error)
            except (InvalidRequest, Overloaded):
                # The mount is gone or cannot be opened: whoever lists tells that.
                self._note(mount, None)
            else:
                self._note(mount, None)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            sources, self._sources = self._sources, {}
        _close(sources)


def _close(sources: dict[str, tuple[Source | InvalidRequest, str]]) -> None:
    for source, _ in sources.values():
        if not isinstance(source, InvalidRequest):
            source.close()
