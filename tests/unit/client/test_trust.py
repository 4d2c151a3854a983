"""Keys reach who holds one of them, and nobody else."""

from dataclasses import dataclass

import pytest

from forebay.trust import Trust, TrustHolder, seal, unseal
from forebay_protocol import auth
from forebay_protocol.errors import InvalidRequest, Unauthorized, WorkerUnavailable

OLD, NEW = b"o" * 64, b"n" * 64


@dataclass
class Worker:
    """Says which key signs, and answers with what it is given."""

    signing_key: str
    answer: bytes | Exception

    def sealed_trust(self) -> bytes:
        """The answer."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def signer(holder: TrustHolder) -> bytes:
    """The key that signs the holder's tokens."""
    return auth.verify((OLD, NEW), holder.token(), "uid", 1000.0).key


def holder() -> TrustHolder:
    """One that has the old key."""
    return TrustHolder("uid", Trust((OLD,)), lambda: 1000.0)


def test_a_mount_takes_the_new_key_up() -> None:
    """What is sealed with the old key holds the new one, which signs from then on."""
    one = holder()

    one.follow(Worker(auth.key_id(NEW), seal(Trust((NEW, OLD)), OLD, "uid")))

    assert signer(one) == NEW


def test_nothing_is_asked_while_the_key_is_the_same() -> None:
    """The usual answer costs nothing."""
    for seen in ("", auth.key_id(OLD)):
        one = holder()
        one.follow(Worker(seen, AssertionError("nobody should ask")))
        assert signer(one) == OLD


@pytest.mark.parametrize(
    "answer",
    [
        seal(Trust((NEW,)), NEW, "uid"), seal(Trust((NEW,)), OLD, "other"), b"", b"x" * 40,
        seal(Trust((NEW,)), OLD, "uid")[:-1], WorkerUnavailable("gone"),
    ],
)  # fmt: skip
def test_what_is_not_for_us_changes_nothing(answer: bytes | Exception) -> None:
    """Sealed with another key, for another dataset, cut, garbage, or no answer."""
    one = holder()

    one.follow(Worker(auth.key_id(NEW), answer))

    assert signer(one) == OLD


def test_a_refusal_is_told() -> None:
    """A key that is not accepted any more is the caller's to report."""
    with pytest.raises(Unauthorized):
        holder().follow(Worker(auth.key_id(NEW), Unauthorized("no")))


def test_sealed_keys_are_not_readable() -> None:
    """Neither the bytes on the way nor a repr nor an error shows a key."""
    sealed = seal(Trust((NEW, OLD)), OLD, "uid")

    assert NEW not in sealed
    assert OLD not in sealed
    assert sealed != seal(Trust((NEW, OLD)), OLD, "uid")
    assert "nnn" not in repr(Trust((NEW,)))
    with pytest.raises(InvalidRequest) as caught:
        unseal(sealed, NEW, "uid")
    assert "nnn" not in str(caught.value)
