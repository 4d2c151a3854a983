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


class _Opened:
    """A mount's source, and the prefix of all its keys."""

    def __init__(self, source: Source, prefix: str) -> None:
        self.source = source
        self.prefix = prefix
        self.stream_into = source.stream_into if isinstance(source, Streaming) else self._whole

    def _whole(self, key: str, version: str, size: int, offset: int, buffer: memoryview, arrived: Arrived) -> None:
        self.source.read_into(key, version, size, offset, buffer)
        arrived(len(buffer))


class Origin:
    """Reads ranges of object versions from the store that the mount names. Thread-safe."""

    def __init__(self, metrics: Metrics, share: Callable[[], float], grant: Grant) -> None:
        """No mounts yet. ``share``: this worker's part of the mounts' limits; ``grant``: what its sources may use."""
        self._share = share
        self._grant = grant
        self._meter = _MeasuredMeter(metrics)
        self._lock = threading.Lock()
        self._sources: dict[str, _Opened | InvalidRequest] = {}
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

    def _opened(self, mount: MountSpec, access: Access) -> "_Opened | InvalidRequest":
        """A mount's source; what is wrong with it is kept for those who use it."""
        credentials = access.credentials.get(mount.name)
        try:
            gate = Gate(mount.limits, self._share)
            source = open_source(mount, credentials, gate, self._grant, self._meter)
            return _Opened(source, parse_source(mount.source).key_prefix)
        except InvalidRequest as error:
            return error

    def source(self, mount: str) -> Source:
        """A mount's store."""
        return self._of(mount).source

    def _of(self, mount: str) -> "_Opened":
        with self._lock:
            if not self._sources:
                raise Overloaded("this worker has no sources yet", retry_after=1.0)
            if mount not in self._sources:
                raise InvalidRequest(f"the dataset has no mount {mount!r}")
            opened = self._sources[mount]
        if isinstance(opened, InvalidRequest):
            raise opened
        return opened

    def _holding(self, one: ObjectVersion) -> "_Opened":
        """The source of an object; InvalidRequest for what no listing of it can have named."""
        opened = self._of(one.mount)
        if not one.key.startswith(opened.prefix):
            raise InvalidRequest("the key lies outside of its mount")
        if not (one.version.isascii() and one.version.isprintable()):
            # It becomes part of a request to the store.
            raise InvalidRequest("the version is none that a store tells")
        return opened

    def read_into(self, one: ObjectVersion, offset: int, buffer: memoryview, arrived: Arrived) -> None:
        """Fill the buffer from the store; a key outside of the mount's prefix is refused."""
        opened = self._holding(one)
        try:
            opened.stream_into(one.key, one.version, one.size, offset, buffer, arrived)
        except SourceError as error:
            self._note(one.mount, None if isinstance(error, ObjectMissing | ObjectChanged) else error)
            raise
        self._note(one.mount, None)

    def newest(self, one: ObjectVersion) -> Listing | None:
        """The object as its store has it now; None when it is gone."""
        opened = self._holding(one)
        return newest(opened.source, opened.prefix, one)

    def digest(self, one: ObjectVersion) -> Digest | None:
        """What the store says of a whole object, where that protects more than the transport does."""
        source = self._holding(one).source
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


def _close(sources: dict[str, _Opened | InvalidRequest]) -> None:
    for opened in sources.values():
        if not isinstance(opened, InvalidRequest):
            opened.source.close()
