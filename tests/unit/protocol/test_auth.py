"""Tokens open one dataset, for a while."""

import pytest

from forebay_protocol import auth
from forebay_protocol.errors import Unauthorized

KEY, OTHER = b"k" * 32, b"o" * 32


def test_a_fresh_token_opens_its_own_dataset() -> None:
    """The plain case, also while a rotation is under way."""
    token = auth.mint(KEY, "uid-a", now=1000)

    auth.verify((KEY,), token, "uid-a", now=1000)
    auth.verify((OTHER, KEY), token, "uid-a", now=1000)


@pytest.mark.parametrize(
    ("keys", "scope", "now"),
    [((OTHER,), "uid-a", 1000.0), ((KEY,), "uid-b", 1000.0), ((KEY,), "uid-a", 1000.0 + auth.TOKEN_LIFETIME + 61)],
)
def test_anything_else_is_refused(keys: tuple[bytes, ...], scope: str, now: float) -> None:
    """A foreign key, another dataset, or too late."""
    token = auth.mint(KEY, "uid-a", now=1000)

    with pytest.raises(Unauthorized):
        auth.verify(keys, token, scope, now)


@pytest.mark.parametrize("token", ["", "v1", "v1.", "v1.x.y", "v2.9999999999.aaaa", "v1.99999999999999.a", "v1.٣.a"])
def test_garbage_is_refused(token: str) -> None:
    """No parse error escapes as anything else."""
    with pytest.raises(Unauthorized):
        auth.verify((KEY,), token, "uid-a", 0)


def test_the_lifetime_cannot_be_stretched() -> None:
    """The expiry is part of what is signed."""
    version, expiry, signature = auth.mint(KEY, "uid-a", now=1000).split(".")

    with pytest.raises(Unauthorized):
        auth.verify((KEY,), f"{version}.{int(expiry) + 1}.{signature}", "uid-a", now=1000)


def test_a_key_file_holds_one_key_per_line() -> None:
    """Blank lines do not count; an empty file is an error, not an open door."""
    assert auth.parse_keys("new\n\nold\n") == (b"new", b"old")
    with pytest.raises(ValueError, match="no key"):
        auth.parse_keys("\n")
