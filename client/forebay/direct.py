"""The last resort of every read: the object store itself.

The store's client library is large and most processes never need it, so it is imported on the first use.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from forebay.limits import Gate
from forebay.source.location import parse_source
from forebay_protocol.dataset import Credentials, DatasetDocument
from forebay_protocol.errors import SourceMissing
from forebay_protocol.keys import ObjectVersion, Span

if TYPE_CHECKING:
    from forebay.source.base import Listing, Source


class DirectSources:
    """The stores behind a dataset's mounts, opened when first needed. Thread-safe."""

    def __init__(
        self,
        document: DatasetDocument,
        credentials: dict[str, Credentials],
        share: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """Nothing is opened yet; mounts without credentials are read without. ``share``: this node's part of limits."""
        self._mounts = {mount.name: mount for mount in document.mounts}
        self._credentials = credentials
        self._lock = threading.Lock()
        self._gates = {mount.name: Gate(mount.limits, share) for mount in document.mounts}
        self._open: dict[str, Source] = {}

    def read_into(self, one: ObjectVersion, span: Span, buffer: memoryview) -> None:
        """Fill the buffer with these bytes of exactly this version, or raise the store's error."""
        self._source(one.mount).read_into(one.key, one.version, one.size, span.offset, buffer)

    def newest(self, one: ObjectVersion) -> "Listing | None":
        """The object as its store has it now; None when it is gone."""
        from forebay.source.newest import newest

        source = self._source(one.mount)
        return newest(source, parse_source(self._mounts[one.mount].source).key_prefix, one)

    def spare(self, one: ObjectVersion) -> bool:
        """Whether the store may be asked now, without waiting for the mount's limits."""
        gate = self._gates.get(one.mount)
        return gate is not None and gate.is_free

    def _source(self, name: str) -> "Source":
        with self._lock:
            if name not in self._open:
                if name not in self._mounts:
                    raise SourceMissing(f"the dataset has no mount {name!r} (any more)")
                from forebay.source.opening import open_source

                self._open[name] = open_source(self._mounts[name], self._credentials.get(name), self._gates[name])
            return self._open[name]

    def close(self) -> None:
        """Close what was opened."""
        with self._lock:
            for source in self._open.values():
                source.close()
            self._open.clear()
