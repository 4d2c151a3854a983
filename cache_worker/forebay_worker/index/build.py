"""List all mounts into a snapshot file, several prefixes of a mount at the same time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import Queue

from forebay.index.writer import Origin as SnapshotOrigin
from forebay.index.writer import SnapshotWriter
from forebay.source import Listing, Source, parse_source
from forebay_protocol.errors import ForebayError

LISTERS = 8
_PAGE = 1000
_PAGES_AHEAD = 16
_MOST_PREFIXES = 1000
"""With more prefixes than that, a request for each would cost more than listing all in a row."""

_Page = list[Listing] | ForebayError | None


class ListingFailed(Exception):
    """A mount could not be listed."""

    def __init__(self, mount: str, cause: ForebayError) -> None:
        """``cause`` is what its source said."""
        super().__init__(f"mount {mount}: {cause.message}")
        self.mount = mount
        self.cause = cause


class _Prefix:
    """The listing of one prefix, fetched ahead of who reads it."""

    def __init__(self, source: Source, prefix: str) -> None:
        self._source, self._prefix = source, prefix
        self._pages: Queue[_Page] = Queue(_PAGES_AHEAD)
        self._wanted = True

    def fetch(self) -> None:
        try:
            found = self._source.list(self._prefix)
            while self._wanted and (page := list(islice(found, _PAGE))):
                self._pages.put(page)
        except ForebayError as error:
            self._pages.put(error)
        else:
            self._pages.put(None)

    def read(self) -> Iterator[Listing]:
        while (page := self._pages.get()) is not None:
            if isinstance(page, ForebayError):
                raise page
            yield from page

    def abandon(self) -> None:
        """Let a fetcher that waits for room end."""
        self._wanted = False
        while not self._pages.empty():
            self._pages.get_nowait()


def list_mount(source: Source, key_prefix: str, executor: ThreadPoolExecutor) -> Iterator[Listing]:
    """All objects of a mount in the order of their keys; everything below a prefix is contiguous in it."""
    top = list(islice(source.list(delimiter=True), _MOST_PREFIXES + _PAGE))
    prefixes = [listing for listing in top if listing.is_prefix]
    if len(top) > _MOST_PREFIXES or len(prefixes) < 2:
        yield from source.list()
        return
    below = {listing.key: _Prefix(source, listing.key[len(key_prefix) :]) for listing in prefixes}
    for one in below.values():
        executor.submit(one.fetch)
    try:
        for listing in top:
            if listing.is_prefix:
                yield from below[listing.key].read()
            else:
                yield listing
    finally:
        for one in below.values():
            one.abandon()


def build(path: Path, origin: SnapshotOrigin, source_of: Callable[[str], Source]) -> str:
    """Write a snapshot of all mounts to ``path``; returns its fingerprint. ListingFailed leaves no file."""
    writer = SnapshotWriter(path, origin)
    with ThreadPoolExecutor(LISTERS, "list") as executor:
        for mount in origin.mounts:
            try:
                for listing in list_mount(source_of(mount.name), parse_source(mount.source).key_prefix, executor):
                    writer.add(mount.name, listing)
            except ForebayError as error:
                writer.abandon()
                raise ListingFailed(mount.name, error) from error
    return writer.finish()
