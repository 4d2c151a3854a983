"""Any file system of fsspec: ``fsspec+PROTOCOL://…``, configured by fsspec's own configuration in the image.

The version of a file is what the file system tells of it: an ETag, checksum or generation, else its time of
modification and size. It is looked at before and after each read.
"""

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from forebay.source.answers import http_date
from forebay.source.base import Listing
from forebay.source.deadline import Deadline
from forebay.source.location import parse_source
from forebay.source.meter import Meter
from forebay.source.retry import Retries
from forebay_protocol.dataset import MountSpec
from forebay_protocol.errors import (
    ForebayError,
    InvalidRequest,
    ObjectChanged,
    ObjectMissing,
    SourceDenied,
    SourceInvalid,
    SourceUnavailable,
)

_LOCAL = {"file", "local", "dir"}
"""They would open the worker's own files, its keys among them."""

_TAGS = ("etag", "ETag", "e_tag", "generation", "md5Hash", "checksum", "content_md5", "crc32c")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "mod_time", "modify", "created")


class FilesystemSource:
    """A folder of a file system that fsspec knows."""

    def __init__(self, mount: MountSpec) -> None:
        """InvalidRequest when fsspec, the protocol's package or the protocol's configuration is missing."""
        location = parse_source(mount.source)
        url = mount.source.removeprefix("fsspec+")
        protocol = url.partition("://")[0]
        if protocol in _LOCAL or "::" in url:
            raise InvalidRequest(f"mount {mount.name}: {mount.source!r} may not name local files or chained protocols")
        try:
            import fsspec.core

            self._files, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except Exception as error:  # a third party's constructor: nobody says what it raises
            raise InvalidRequest(
                f"mount {mount.name}: fsspec cannot open {protocol}:// ({type(error).__name__}: {error}); install and "
                "configure the protocol's package in the workers' image"
            ) from error
        self._root = str(root).rstrip("/")
        self._prefix = location.key_prefix
        self._what = mount.source
        self._retries = Retries(Meter())

    def list(self, prefix_below_mount: str = "", delimiter: bool = False) -> Iterator[Listing]:
        """Folder by folder, in the order of keys."""
        folder = f"{self._root}/{prefix_below_mount}".rstrip("/")
        entries = self._retries.run(lambda _: self._entries(folder, below=bool(prefix_below_mount)))
        for name, info in sorted(entries.items(), key=lambda one: one[0].encode()):
            below = prefix_below_mount + name
            if not name.endswith("/"):
                mtime_ns = int((_moment(info) or 0.0) * 1000) * 1_000_000
                yield Listing(self._prefix + below, int(info["size"]), self._version(info), mtime_ns)
            elif delimiter:
                yield Listing(self._prefix + below, 0, "", 0)
            else:
                yield from self.list(below)

    def _entries(self, folder: str, *, below: bool) -> dict[str, Mapping[str, Any]]:
        """What is directly in a folder: names, those of folders with a slash, and what is said of them."""
        try:
            with self._told(folder):
                listed = self._files.ls(folder, detail=True)
        except ObjectMissing:
            if below:
                return {}
            raise
        names = {}
        for info in listed:
            name = str(info["name"]).rstrip("/").rpartition("/")[2]
            if str(info["name"]).rstrip("/") != folder and name not in ("", ".", ".."):
                names[f"{name}/" if info["type"] == "directory" else name] = info
        return names

    def _version(self, info: Mapping[str, Any]) -> str:
        tag = next((str(info[name]) for name in _TAGS if info.get(name)), "")
        moment = _moment(info)
        if not tag and moment is None:
            raise SourceInvalid(
                f"{self._what}: the file system tells neither a tag nor a time of modification of its files; "
                "nobody could say which version a byte is of"
            )
        said = tag or f"{moment:.6f} {info['size']}"
        return hashlib.blake2b(said.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def read_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview) -> None:
        """Read a range of a file that is of this version before and after."""
        path = f"{self._root}/{key.removeprefix(self._prefix)}"

        def attempt(_: Deadline) -> None:
            with self._told(path):
                self._check(path, version, size)
                data = self._files.cat_file(path, start=offset, end=offset + len(buffer))
                if len(data) != len(buffer):
                    raise SourceInvalid(f"{self._what}: {len(data)} bytes came where {len(buffer)} were asked for")
                self._check(path, version, size)
            buffer[:] = data

        self._retries.run(attempt)

    def _check(self, path: str, version: str, size: int) -> None:
        info = self._files.info(path)
        if info["size"] != size or self._version(info) != version:
            raise ObjectChanged(f"{self._what}: {path!r} has changed; open the file again for the new version")

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """Call by our names what the file system says."""
        try:
            yield
        except ForebayError:
            raise
        except FileNotFoundError as error:
            raise ObjectMissing(f"{self._what}: there is no {path!r} (any more)") from error
        except PermissionError as error:
            raise SourceDenied(f"{self._what}: {path!r} is refused; check the credentials in the image") from error
        except Exception as error:  # the protocol's own errors: fsspec gives them no common kind
            raise SourceUnavailable(f"{self._what}: {path!r}: {type(error).__name__}: {error}") from error

    def probe(self) -> None:
        """List the folder itself."""
        self._entries(self._root, below=False)

    def close(self) -> None:
        """The file system keeps what it has open to itself."""


def _moment(info: Mapping[str, Any]) -> float | None:
    """When the file was modified, in Unix time: file systems tell it as a number, a date or a text."""
    told = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(told, str):
        try:
            return dt.datetime.fromisoformat(told).timestamp()
        except ValueError:
            return http_date(told)
    if isinstance(told, dt.datetime):
        told = told.timestamp()
    return float(told) if isinstance(told, int | float) else None
