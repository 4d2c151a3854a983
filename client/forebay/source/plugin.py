"""Sources of other distributions: an entry point of the group ``forebay.sources``, or a file system of fsspec.

An entry point's name is the scheme that it serves; what it names is called with the mount and its credentials and
returns a Source. docs/SOURCES.md is the tutorial.
"""

from collections.abc import Callable
from importlib.metadata import entry_points

from forebay.source.base import Source
from forebay.source.location import parse_source
from forebay_protocol.dataset import Credentials, MountSpec
from forebay_protocol.errors import InvalidRequest

GROUP = "forebay.sources"
FSSPEC = "fsspec+"
BUILT_IN = ("s3", "pvc", "http", "https")

Factory = Callable[[MountSpec, Credentials | None], Source]
"""What an entry point names; it raises InvalidRequest for a mount that it cannot serve."""


def open_plugin(mount: MountSpec, credentials: Credentials | None) -> Source:
    """The source that another distribution makes for the mount's scheme; InvalidRequest when none does."""
    scheme = parse_source(mount.source).scheme
    if scheme.startswith(FSSPEC):
        from forebay.source.filesystem import FilesystemSource

        return FilesystemSource(mount)
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if scheme not in installed:
        known = ", ".join(f"{name}://" for name in (*BUILT_IN, *sorted(installed)))
        raise InvalidRequest(
            f"the source {mount.source!r} of mount {mount.name!r} has an unknown scheme; known are {known} and "
            f"{FSSPEC}PROTOCOL://"
        )
    try:
        factory: Factory = installed[scheme].load()
    except (ImportError, AttributeError) as error:
        raise InvalidRequest(f"the source plug-in for {scheme}:// cannot be loaded: {error}; reinstall it") from error
    return factory(mount, credentials)
