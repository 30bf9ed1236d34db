"""Certificates and htpasswd files, by plain functions.

Certificates follow RFC 5280. Go's crypto/x509 is the strictest client here: it checks a server's
subject alternative names only.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import AddressValueError, IPv4Address

import bcrypt
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from talos_registry_cache.errors import ReportedError
from talos_registry_cache.registry.served_certificate import RENEWED_BEFORE

from . import readers

AUTHORITY_LASTS = timedelta(days=3650)
SERVER_LASTS = timedelta(days=365)
# How long before the end of the newest CA the next one is introduced. Server certificates are
# renewed every year, so clients trust the next CA for 11 months or longer before it signs one.
INTRODUCED_BEFORE = 2 * SERVER_LASTS
# Clocks of other machines may be slow.
BACKDATED = timedelta(hours=1)
# The limit of a common name (RFC 5280, ub-common-name).
LONGEST_COMMON_NAME = 64
LONGEST_DNS_NAME = 253
# The default of Apache's htpasswd: 2 ms. A registry checks the password at each request without
# caching (distribution, registry/auth/htpasswd; its issue 3017): with bcrypt's usual 12, a core
# would answer four requests a second, and wrong passwords could keep it busy.
BCRYPT_COST = 5

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


class CertificateError(ReportedError):
    """Invalid input for a certificate or htpasswd file; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, both PEM."""

    certificate: str
    key: str = field(repr=False)


def issue_authority(common_name: str, now: datetime) -> Issued:
    """Generate a CA that signs server certificates only.

    Args:
        common_name: its common name.
        now: start of its validity.

    Raises:
        CertificateError: the name is invalid.
    """
    if not 0 < len(common_name) <= LONGEST_COMMON_NAME or not common_name.isprintable():
        raise CertificateError(
            f"found the common name {common_name!r}; "
            f"allowed: up to {LONGEST_COMMON_NAME} printable characters"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    signed = (
        _begun(name, name, key, now, now + AUTHORITY_LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _issued(signed, key)


def needs_next(authorities: Sequence[Issued], now: datetime) -> bool:
    """Whether the next CA has to be introduced, so that clients trust it in time."""
    return expires(authorities[-1].certificate) - now < INTRODUCED_BEFORE


def with_next(authorities: Sequence[Issued], common_name: str, now: datetime) -> tuple[Issued, ...]:
    """Introduce the next CA, beside those that have not expired.

    Args:
        authorities: the CAs that clients trust, oldest first.
        common_name: its common name.
        now: start of its validity.

    Returns:
        The CAs to trust from now on, oldest first.

    Raises:
        CertificateError: the name is invalid.
    """
    valid = [one for one in authorities if expires(one.certificate) > now]
    return (*valid, issue_authority(common_name, now))


def signer(authorities: Sequence[Issued], now: datetime) -> Issued:
    """The CA that signs now: the oldest that does not expire soon, which most clients trust."""
    lasting = (one for one in authorities if not is_due(one.certificate, now))
    return next(lasting, authorities[-1])


def is_due(certificate: str, now: datetime) -> bool:
    """Whether a certificate in PEM has expired or expires soon."""
    return expires(certificate) - now < RENEWED_BEFORE


def is_signed_by_any(certificate: str, authorities: Sequence[Issued]) -> bool:
    """Whether one of the CAs has signed a certificate (PEM)."""
    server = x509.load_pem_x509_certificate(certificate.encode())
    return any(_has_signed(server, one.certificate) for one in authorities)


def _has_signed(server: x509.Certificate, authority: str) -> bool:
    try:
        server.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.encode()))
    except (ValueError, InvalidSignature):
        return False
    return True


def issue_server(authority: Issued, names: Sequence[str], now: datetime) -> Issued:
    """Generate a server certificate, valid no longer than its CA.

    Args:
        authority: the CA that signs it.
        names: DNS names and IPv4 addresses at which clients reach the server.
        now: start of its validity.

    Raises:
        CertificateError: there are no names, or one is invalid.
    """
    if not names:
        raise CertificateError("found no name of the server; allowed: one or more")
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    issuers_key = load_pem_private_key(authority.key.encode(), None)
    assert isinstance(issuers_key, ec.EllipticCurvePrivateKey)  # noqa: S101 - made above
    key = ec.generate_private_key(ec.SECP256R1())
    (common_name,) = issuer.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    # Not the CA's own name, which would make the certificate look self-signed.
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, common_name.value)])
    until = min(now + SERVER_LASTS, issuer.not_valid_after_utc)
    signed = (
        _begun(subject, issuer.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(name) for name in dict.fromkeys(names)]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuers_key.public_key()),
            critical=False,
        )
        .sign(issuers_key, hashes.SHA256())
    )
    return _issued(signed, key)


def expires(certificate: str) -> datetime:
    """When a certificate in PEM expires."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc


def check_names(names: Sequence[str]) -> None:
    """Check the names of a server.

    Raises:
        CertificateError: one is neither a DNS name nor an IPv4 address.
    """
    for name in names:
        _alternative(name)


def htpasswd(passwords: Mapping[str, str], before: str = "") -> str:
    """An htpasswd file for distribution, which supports bcrypt only.

    Salts are random. A salt derived from the password would let an attacker who has the file bypass
    bcrypt; a salt derived from the name would be the same everywhere.

    Args:
        passwords: the password of each reader, by user name.
        before: the previous file, whose unchanged lines are kept.

    Raises:
        CertificateError: a user name or password is invalid; the message shows no password.
    """
    lines = dict(line.split(":", 1) for line in before.splitlines())
    return "".join(
        f"{name}:{_hashed(name, password, lines.get(name))}\n"
        for name, password in sorted(passwords.items())
    )


def _hashed(name: str, password: str, before: str | None) -> str:
    if not readers.is_name(name):
        raise CertificateError(f"found the reader {name!r}; allowed: {readers.ALLOWED_NAMES}")
    if not readers.is_password(password):
        raise CertificateError(
            f"the password of the reader {name} cannot be used; "
            f"allowed: {readers.ALLOWED_PASSWORDS}"
        )
    secret = password.encode()
    if before is not None and bcrypt.checkpw(secret, before.encode()):
        return before
    return bcrypt.hashpw(secret, bcrypt.gensalt(BCRYPT_COST)).decode()


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    since: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since - BACKDATED)
        .not_valid_after(until.astimezone(UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(IPv4Address(name))
    except AddressValueError:
        labels = name.lower().split(".")
    # Clients read a name whose last label is a number as an address (RFC 1123, 2.1).
    is_name = all(re.fullmatch(_LABEL, label, re.ASCII) for label in labels)
    if not is_name or labels[-1].isdigit() or len(name) > LONGEST_DNS_NAME:
        raise CertificateError(
            f"found {name!r}; allowed: a DNS name such as cache.example, or an IPv4 address"
        )
    return x509.DNSName(name.lower())


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Issued(certificate.public_bytes(Encoding.PEM).decode(), private.decode())
