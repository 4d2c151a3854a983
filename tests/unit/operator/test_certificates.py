"""Certificates are made when there is none that is good, and kept while there is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from forebay_operator.model.certificates import LIFE, RENEW_BEFORE, Certificates, Pair, in_force, issue, make_authority

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOST = "demo-worker.team.svc"


@pytest.fixture(scope="module")
def made() -> Certificates:
    """The first ones."""
    return in_force(None, None, HOST, NOW)


def test_good_ones_are_kept(made: Certificates) -> None:
    """Until 30 days before the end."""
    last = NOW + LIFE - RENEW_BEFORE
    before = last - timedelta(seconds=1)

    assert in_force(made.authority, made.worker, HOST, before) == made
    renewed = in_force(made.authority, made.worker, HOST, last)
    assert renewed.authority == made.authority
    assert renewed.worker != made.worker


@pytest.mark.parametrize("damage", ["", "garbage", "foreign", "name", "key"])
def test_a_worker_certificate_that_is_not_good_is_replaced(made: Certificates, damage: str) -> None:
    """Missing, unreadable, of another authority, for another name, or with a key that is not its own."""
    other = make_authority(HOST, NOW)
    bad = {
        "": None,
        "garbage": Pair("-----BEGIN", "x"),
        "foreign": issue(other, HOST, NOW),
        "name": issue(made.authority, f"x.{HOST}", NOW),
        "key": replace(made.worker, key=other.key),
    }[damage]

    found = in_force(made.authority, bad, HOST, NOW)

    assert found.authority == made.authority
    assert found.worker not in (bad, made.worker)
    assert in_force(found.authority, found.worker, HOST, NOW) == found


@pytest.mark.parametrize("damage", ["garbage", "key"])
def test_a_lost_authority_takes_its_certificate_with_it(made: Certificates, damage: str) -> None:
    """What it had signed is replaced as well, or nobody could verify it."""
    bad = Pair("x", "y") if damage == "garbage" else replace(made.authority, key=make_authority(HOST, NOW).key)

    found = in_force(bad, made.worker, HOST, NOW)

    assert found.authority != made.authority
    assert in_force(found.authority, found.worker, HOST, NOW) == found


def test_what_a_certificate_may_do(made: Certificates) -> None:
    """The authority signs only for its host, and a worker's certificate signs nothing."""
    authority = x509.load_pem_x509_certificate(made.authority.certificate.encode())
    worker = x509.load_pem_x509_certificate(made.worker.certificate.encode())

    constraint = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraint.critical
    assert constraint.value.permitted_subtrees == [x509.DNSName(HOST)]
    assert not worker.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = worker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [HOST, f"*.{HOST}"]
    assert "PRIVATE" not in repr(made)
