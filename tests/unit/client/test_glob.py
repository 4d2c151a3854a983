"""Globs over paths."""

import pytest

from forebay.index.glob import PathFilter


@pytest.mark.parametrize(
    ("glob", "path", "selected"),
    [
        ("/", "/any/thing", True),
        ("/models", "/models/a/b", True),
        ("/models/", "/models/a/b", True),
        ("/models", "/modelsx", False),
        ("/models/*.bin", "/models/a.bin", True),
        ("/models/*.bin", "/models/sub/a.bin", False),
        ("/models/**/*.bin", "/models/sub/deep/a.bin", True),
        ("/models/**/*.bin", "/models/a.bin", True),
        ("*.bin", "/models/sub/a.bin", True),
        ("*.bin", "/a.bin.txt", False),
        ("/a?c", "/abc", True),
        ("/a?c", "/a/c", False),
        ("/[ab]x", "/bx", True),
        ("/[!ab]x", "/bx", False),
        ("/[!ab]x", "/cx", True),
        ("/[x", "/[x", True),
        ("/a+(b).txt", "/a+(b).txt", True),
        ("**", "/x/y", True),
        ("/line\nbreak", "/line\nbreak/x", True),
    ],
)
def test_a_glob_selects(glob: str, path: str, selected: bool) -> None:
    """One name per star, folders by two, everything below what matches."""
    assert PathFilter([glob]).matches(path) is selected


def test_exclude_wins() -> None:
    """What both name is left out; without include everything else is in."""
    both = PathFilter(["/a"], ["*.tmp"])

    assert [both.matches(path) for path in ("/a/x", "/a/x.tmp", "/b")] == [True, False, False]
    assert PathFilter((), ["*.tmp"]).matches("/b")
