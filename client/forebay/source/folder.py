"""A claim's files, for workers that have the claim mounted: ``pvc://claim/path``.

The version of a file is its inode, size, mtime and ctime, looked at before and after each read. Nothing below the
claim leads out of it: symbolic links are not followed and not shown, nor is anything that is no plain file.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from forebay.source.base import Listing
from forebay.source.grant import Grant
from forebay.source.location import parse_source
from forebay_protocol.dataset import MountSpec
from forebay_protocol.errors import (
    InvalidRequest,
    ObjectChanged,
    ObjectMissing,
    SourceDenied,
    SourceMissing,
    SourceUnavailable,
)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK opening a pipe that took a file's name would wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FolderSource:
    """The plain files below a folder of a claim."""

    def __init__(self, mount: MountSpec, grant: Grant) -> None:
        """InvalidRequest where claims are not mounted, or when the path is none."""
        location = parse_source(mount.source)
        if grant.claims is None:
            raise InvalidRequest(
                f"mount {mount.name}: no claims are mounted here; name the folder that holds them by --claims-dir"
            )
        if not _is_plain(location.container) or not all(map(_is_plain, _components(location.prefix))):
            raise InvalidRequest(f"mount {mount.name}: {mount.source!r} is not of the form pvc://claim/path")
        self._claim = grant.claims / location.container
        self._prefix = location.key_prefix
        self._what = f"claim {location.container}"

    def list(self, prefix_below_mount: str = "", delimiter: bool = False) -> Iterator[Listing]:
        """Walk the folders; one that vanishes while it is read is left out."""
        prefix = self._prefix + prefix_below_mount
        try:
            with self._opened(prefix, _FOLDER, prefix) as folder:
                yield from self._walk(folder, prefix, delimiter)
        except ObjectMissing as error:
            if prefix_below_mount:
                return
            raise SourceMissing(
                f"{self._what}: there is no folder {prefix!r}; create it or correct the source"
            ) from error

    def _walk(self, folder: int, prefix: str, delimiter: bool) -> Iterator[Listing]:
        with _told(self._what, prefix):
            found = [entry for entry in os.scandir(folder) if _is_utf8(entry.name)]
        # As keys are ordered: a folder sorts by its name and the slash that follows it.
        kinds = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        for name, is_folder in sorted(kinds, key=lambda one: os.fsencode(one[0] + "/" * one[1])):
            key = prefix + name
            if not is_folder:
                yield from _plain_file(folder, name, key)
            elif delimiter:
                yield Listing(f"{key}/", 0, "", 0)
            else:
                yield from self._below(folder, name, f"{key}/")

    def _below(self, folder: int, name: str, prefix: str) -> Iterator[Listing]:
        try:
            with _told(self._what, prefix):
                inner = os.open(name, _FOLDER, dir_fd=folder)
        except ObjectMissing:
            return
        try:
            yield from self._walk(inner, prefix, delimiter=False)
        finally:
            os.close(inner)

    def read_into(self, key: str, version: str, size: int, offset: int, buffer: memoryview) -> None:
        """Read through a descriptor whose file is of this version before and after."""
        if not key.startswith(self._prefix) or offset + len(buffer) > size:
            raise InvalidRequest("the key or the range lies outside of its mount")
        with self._opened(key, _FILE, key) as file:
            self._check(file, version, key)
            position = 0
            while position < len(buffer):
                count = os.preadv(file, [buffer[position:]], offset + position)
                if not count:
                    raise ObjectChanged(f"{self._what}: {key!r} ended early; open the file again")
                position += count
            self._check(file, version, key)

    def _check(self, file: int, version: str, key: str) -> None:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or version_of(found) != version:
            raise ObjectChanged(f"{self._what}: {key!r} has changed; open the file again for the new version")

    @contextlib.contextmanager
    def _opened(self, path: str, flags: int, what: str) -> Iterator[int]:
        """A descriptor, found component by component so that no symbolic link is followed."""
        *above, last = [".", *_components(path)]
        with _told(self._what, what):
            current = os.open(self._claim, _FOLDER)
            try:
                for name in above:
                    current = _step(current, name, _FOLDER)
                current = _step(current, last, flags)
                yield current
            finally:
                os.close(current)

    def probe(self) -> None:
        """Open the folder and look at one entry."""
        next(self.list(delimiter=True), None)

    def close(self) -> None:
        """Nothing is kept open."""


def _step(folder: int, name: str, flags: int) -> int:
    if not _is_plain(name) and name != ".":
        raise InvalidRequest("a path within a claim has no empty, '.' or '..' components")
    inner = os.open(name, flags, dir_fd=folder)
    os.close(folder)
    return inner


def _components(path: str) -> list[str]:
    return path.rstrip("/").split("/") if path else []


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain_file(folder: int, name: str, key: str) -> Iterator[Listing]:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode):
        yield Listing(key, found.st_size, version_of(found), found.st_mtime_ns)


def version_of(found: os.stat_result) -> str:
    """Inode, size, mtime and ctime: a write, a replacement and a set-back clock all change one of them."""
    return f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}-{found.st_ctime_ns:x}"


@contextlib.contextmanager
def _told(what: str, path: str) -> Iterator[None]:
    """Call by our names what the file system says."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ObjectMissing(f"{what}: {path!r} was deleted; the next listing will not show it") from error
    except PermissionError as error:
        raise SourceDenied(
            f"{what}: {path!r} may not be read by the worker's user; let files be readable, folders searchable for all"
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ObjectChanged(f"{what}: {path!r} is a symbolic link now; links are not followed") from error
        raise SourceUnavailable(f"{what}: {path!r} cannot be read ({error.strerror}); check the volume") from error
