"""The certificates of a Dataset's workers: an authority of their own, and one server certificate for all of them.

X.509 (RFC 5280) with P-256 keys. The certificate is for the workers' Service and for each pod's name below it; who
connects verifies the Service's name, since workers of one Runtime share their key and the tokens' keys anyway.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3650)
LIFE = timedelta(days=90)
RENEW_BEFORE = timedelta(days=30)
"""How long before its end the workers' certificate is replaced."""

_SKEW = timedelta(hours=1)
"""Certificates hold from a little before their making: clocks differ."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, as PEM."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certificates:
    """What is in force."""

    authority: Pair
    worker: Pair


def in_force(authority: Pair | None, worker: Pair | None, host: str, now: datetime) -> Certificates:
    """What is held, or made anew where it is missing, damaged, for another name or near its end."""
    if authority is None or not _signs(authority, now):
        authority, worker = make_authority(host, now), None
    if worker is None or not _holds(worker, authority, host, now):
        worker = issue(authority, host, now)
    return Certificates(authority, worker)


def _signs(authority: Pair, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(authority.certificate.encode())
        key = serialization.load_pem_private_key(authority.key.encode(), None)
    except ValueError:
        return False
    return certificate.public_key() == key.public_key() and now < certificate.not_valid_after_utc


def _holds(worker: Pair, authority: Pair, host: str, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(worker.certificate.encode())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate.encode()))
        key = serialization.load_pem_private_key(worker.key.encode(), None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    fresh = now < certificate.not_valid_after_utc - RENEW_BEFORE
    return fresh and certificate.public_key() == key.public_key() and host in names.get_values_for_type(x509.DNSName)


def make_authority(host: str, now: datetime) -> Pair:
    """An authority for the workers of ``host``; it can sign server certificates and nothing below itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Forebay workers' authority")])
    usage = x509.KeyUsage(
        digital_signature=False, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    # A name constraint: what this key signs is worth nothing for any other host.
    constraint = x509.NameConstraints([x509.DNSName(host)], None)
    builder = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(constraint, critical=True)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Pair, host: str, now: datetime, life: timedelta = LIFE) -> Pair:
    """A server certificate for ``host`` and all names directly below it."""
    signer = serialization.load_pem_private_key(authority.key.encode(), None)
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    # A subject may have 64 characters, a host more: names are where RFC 6125 wants them, in the extension.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Forebay worker")])
    names = x509.SubjectAlternativeName([x509.DNSName(host), x509.DNSName(f"*.{host}")])
    builder = (
        _builder(name, issuer.subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return _pair(builder.sign(signer, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    encoding = serialization.Encoding.PEM
    return Pair(
        certificate.public_bytes(encoding).decode(),
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode(),
    )
