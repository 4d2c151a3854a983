"""Keys become paths: every key is reachable, none escapes, and the map can be undone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.index.naming import MAX_NAME, is_folder, key_of, names_of

KEYS = st.text(st.characters(codec="utf-8"), max_size=700) | st.lists(
    st.sampled_from(["", ".", "..", "a", ".forebay-", ".forebay+", "%00", "\0", "ü" * 200]), max_size=8
).map("/".join)


@given(KEYS)
def test_the_map_is_one_to_one(key: str) -> None:
    """The key comes back, but for the closing slash that makes a folder of it."""
    assert key_of(names_of(key)) == key.removesuffix("/")


@given(KEYS)
def test_every_name_is_one_that_a_file_system_takes(key: str) -> None:
    """No empty, relative or overlong name, no slash and no NUL."""
    for name in names_of(key):
        assert name not in ("", ".", "..")
        assert "/" not in name
        assert "\0" not in name
        assert len(name.encode("utf-8", "surrogateescape")) <= MAX_NAME


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("model/part 1 ü%20+.bin", ("model", "part 1 ü%20+.bin")),
        ("a//b", ("a", ".forebay-", "b")),
        ("a/../b", ("a", ".forebay-..", "b")),
        ("folder/", ("folder",)),
        ("/lead", (".forebay-", "lead")),
        (".forebay-x", (".forebay-.forebay-x",)),
        ("nul\0%", (".forebay-nul%00%25",)),
        ("x" * 300, (".forebay+" + "x" * 246, ".forebay-" + "x" * 54)),
    ],
)
def test_examples_of_the_documentation(key: str, names: tuple[str, ...]) -> None:
    """As docs/SEMANTICS.md lists them."""
    assert names_of(key) == names


def test_folders_are_told_by_their_slash() -> None:
    """An object whose key ends in a slash is a folder; the mount's own prefix is one too."""
    assert [is_folder(key) for key in ("a/", "", "a", "a/b")] == [True, True, False, False]
