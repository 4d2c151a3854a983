"""Globs over paths: which files a mount shows and which a load selects.

``*`` and ``?`` stay within one name, ``**`` crosses folders, ``[…]`` is a set. A glob that matches a folder
takes everything below it. A glob without a slash matches a name at any depth; any other starts at the root.
"""

import re
from collections.abc import Sequence


def _set(glob: str, start: int) -> tuple[str, int]:
    """Translate the set that begins at ``start``; a lone bracket means itself."""
    end = glob.find("]", start + 2)
    if end < 0:
        return re.escape("["), start + 1
    inner = glob[start + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
    if inner.startswith(("!", "^")):
        inner = "^/" + inner[1:]
    return f"[{inner}]", end + 1


def translate(glob: str) -> str:
    """The regular expression that matches the whole of a path without its leading slash."""
    pattern = "" if "/" in glob.rstrip("/") or glob == "**" else "(?:.*/)?"
    position, glob = 0, glob.strip("/")
    while position < len(glob):
        if glob.startswith("**/", position):
            pattern, position = pattern + "(?:.*/)?", position + 3
        elif glob.startswith("**", position):
            pattern, position = pattern + ".*", position + 2
        elif glob[position] == "*":
            pattern, position = pattern + "[^/]*", position + 1
        elif glob[position] == "?":
            pattern, position = pattern + "[^/]", position + 1
        elif glob[position] == "[":
            translated, position = _set(glob, position)
            pattern += translated
        else:
            pattern, position = pattern + re.escape(glob[position]), position + 1
    return f"(?s:{pattern})(?:/.*)?" if glob else "(?s:.*)"


class PathFilter:
    """Selects paths: those that any ``include`` matches (all, when there is none) and no ``exclude``."""

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        """Compile the globs."""
        self._include = [re.compile(translate(glob), re.DOTALL) for glob in include]
        self._exclude = [re.compile(translate(glob), re.DOTALL) for glob in exclude]

    def matches(self, path: str) -> bool:
        """Whether the path (with or without a leading slash) is selected."""
        below = path.lstrip("/")
        if self._include and not any(one.fullmatch(below) for one in self._include):
            return False
        return not any(one.fullmatch(below) for one in self._exclude)
