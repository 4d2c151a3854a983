"""List all mounts into a snapshot file, several prefixes of a mount at the same time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path
from queue import Queue

from forebay.index.packing import Packer
from forebay.index.writer import Origin as SnapshotOrigin
from forebay.index.writer import OutOfOrder, SnapshotWriter
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

    def read(self) -> Iterator[list[Listing]]:
        while (page := self._pages.get()) is not None:
            if isinstance(page, ForebayError):
                raise page
            yield page

    def abandon(self) -> None:
        """Let a fetcher that waits for room end."""
        self._wanted = False
        while not self._pages.empty():
            self._pages.get_nowait()


def list_mount(source: Source, key_prefix: str, executor: ThreadPoolExecutor) -> Generator[list[Listing]]:
    """All objects of a mount in the order of their keys, in pages that are fetched ahead."""
    top = list(islice(source.list(delimiter=True), _MOST_PREFIXES + _PAGE))
    prefixes = [listing.key for listing in top if listing.is_prefix]
    if len(top) > _MOST_PREFIXES or len(prefixes) < 2:
        top, prefixes = [], [key_prefix]
    waiting = deque(_Prefix(source, key[len(key_prefix) :]) for key in prefixes)
    fetched: deque[_Prefix] = deque()

    def fetch_next() -> None:
        # As many as there are threads: what is fetched ahead is bounded, and the one that is read has a thread.
        if waiting:
            fetched.append(waiting.popleft())
            executor.submit(fetched[-1].fetch)

    for _ in range(LISTERS):
        fetch_next()
    try:
        for is_prefix, listings in groupby(top, key=lambda listing: listing.is_prefix):
            if not is_prefix:
                yield list(listings)
                continue
            for _ in listings:
                yield from fetched[0].read()
                fetched.popleft()
                fetch_next()
        if not top:
            yield from fetched[0].read()
    finally:
        for one in fetched:
            one.abandon()


def build(path: Path, packed: Path, origin: SnapshotOrigin, source_of: Callable[[str], Source]) -> str:
    """Write a snapshot of all mounts to ``path`` and, as it is sent to others, to ``packed``; returns its fingerprint.

    ListingFailed leaves no file. A source that does not list in order is listed again, and sorted in memory.
    """
    unordered: set[str] = set()
    while True:
        try:
            return _build(path, packed, origin, source_of, unordered)
        except _Unordered as error:
            unordered.add(error.mount)


class _Unordered(Exception):
    def __init__(self, mount: str) -> None:
        super().__init__(mount)
        self.mount = mount


def _build(
    path: Path, packed: Path, origin: SnapshotOrigin, source_of: Callable[[str], Source], unordered: set[str]
) -> str:
    packer = Packer(packed)
    writer = SnapshotWriter(path, origin, packer.write)
    mount = ""
    try:
        with ThreadPoolExecutor(LISTERS, "list") as executor:
            for mount, key_prefix in [(one.name, parse_source(one.source).key_prefix) for one in origin.mounts]:
                pages = list_mount(source_of(mount), key_prefix, executor)
                with closing(pages):
                    for page in _sorted(pages) if mount in unordered else pages:
                        writer.add(mount, page)
        fingerprint = writer.finish()
        packer.finish()
    except BaseException as error:
        writer.abandon()
        packer.abandon()
        if isinstance(error, OutOfOrder):
            raise _Unordered(mount) from error
        if isinstance(error, ForebayError):
            raise ListingFailed(mount, error) from error
        raise
    return fingerprint


def _sorted(pages: Iterable[list[Listing]]) -> Iterator[list[Listing]]:
    yield sorted((listing for page in pages for listing in page), key=lambda listing: listing.key)
