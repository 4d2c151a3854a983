"""How object keys become paths, so that every object is reachable and no name escapes the mount.

A key (below the mount's prefix) is split at ``/``. A component that a file system cannot show is escaped:
``.forebay-`` and the component, in which ``%`` and NUL are percent-encoded. One that is too long is cut into
folders: ``.forebay+`` before every piece but the last, ``.forebay-`` before the last. A component that looks
escaped already is escaped again, so the map is one-to-one and ``key_of`` undoes it.
"""

from collections.abc import Iterator, Sequence

WHOLE = ".forebay-"
PART = ".forebay+"
MAX_NAME = 255
"""The longest name of one folder or file, in bytes of UTF-8."""

_ENCODED = {"%": "%25", "\0": "%00"}


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _is_plain(component: str) -> bool:
    return (
        component not in ("", ".", "..")
        and "\0" not in component
        and not is_escaped(component)
        and _size(component) <= MAX_NAME
    )


def _escaped(component: str) -> Iterator[str]:
    piece = ""
    for character in component:
        encoded = _ENCODED.get(character, character)
        if _size(PART + piece + encoded) > MAX_NAME:
            yield PART + piece
            piece = ""
        piece += encoded
    yield WHOLE + piece


def names_of(key: str) -> tuple[str, ...]:
    """The names on the way to what a key below the mount stands for; a closing slash (a folder) adds none."""
    names: list[str] = []
    components = key.split("/")
    if components[-1] == "":
        components.pop()
    for component in components:
        if _is_plain(component):
            names.append(component)
        else:
            names.extend(_escaped(component))
    return tuple(names)


def key_of(names: Sequence[str]) -> str:
    """The key below the mount that these names stand for."""
    components: list[str] = []
    pending = ""
    for name in names:
        if name.startswith(PART):
            pending += name[len(PART) :]
        elif name.startswith(WHOLE):
            encoded = pending + name[len(WHOLE) :]
            components.append(encoded.replace("%00", "\0").replace("%25", "%"))
            pending = ""
        else:
            components.append(name)
    return "/".join(components)


def is_escaped(name: str) -> bool:
    """Whether the name stands for something that a file system cannot show."""
    return name.startswith((WHOLE, PART))


def is_folder(key: str) -> bool:
    """Whether an object of this key below the mount stands for a folder."""
    return key == "" or key.endswith("/")


def split_path(path: str) -> tuple[str, ...]:
    """The names of an absolute path; repeated and closing slashes add none."""
    return tuple(name for name in path.split("/") if name)
