"""Certificates of a stack's own authority, and the password file of a registry: plain functions.

What clients check of a certificate is in RFC 5280, and Go's crypto/x509 is the strictest of those
that matter here: a server is known by its alternative names alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import AddressValueError, IPv4Address

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from . import readers

AUTHORITY_LASTS = timedelta(days=3650)
SERVER_LASTS = timedelta(days=365)
# Clocks of other machines may be slow.
BACKDATED = timedelta(hours=1)
# A name's field in a certificate takes no more (RFC 5280, ub-common-name).
LONGEST_COMMON_NAME = 64
LONGEST_DNS_NAME = 253
# That of Apache's htpasswd: 2 ms. A registry checks the password at each request, and remembers
# nothing (distribution, registry/auth/htpasswd; its issue 3017): by bcrypt's usual 12, a core would
# answer four requests a second, and a stranger with a wrong password could keep it busy.
BCRYPT_COST = 5

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


class CertificateError(Exception):
    """No certificate or password file can be made of it; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, both PEM."""

    certificate: str
    key: str = field(repr=False)


def issue_authority(common_name: str, now: datetime) -> Issued:
    """Make an authority that signs servers, and no further authority.

    Args:
        common_name: its name, as people read it.
        now: when it begins.

    Raises:
        CertificateError: the name is none.
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


def issue_server(authority: Issued, names: Sequence[str], now: datetime) -> Issued:
    """Make the certificate of a server, valid for no longer than its authority.

    Args:
        authority: who signs it.
        names: DNS names and IPv4 addresses by which clients reach the server.
        now: when it begins.

    Raises:
        CertificateError: there is no name, or one is neither.
    """
    if not names:
        raise CertificateError("found no name of the server; allowed: one or more")
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    issuers_key = load_pem_private_key(authority.key.encode(), None)
    assert isinstance(issuers_key, ec.EllipticCurvePrivateKey)  # noqa: S101 - made above
    key = ec.generate_private_key(ec.SECP256R1())
    (common_name,) = issuer.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    # Not the authority's own name: it would look as if the server had signed itself.
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
    """When a certificate in PEM ends."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc


def check_names(names: Sequence[str]) -> None:
    """Refuse what is no name of a server.

    Raises:
        CertificateError: one is neither a DNS name nor an IPv4 address.
    """
    for name in names:
        _alternative(name)


def htpasswd(passwords: Mapping[str, str], before: str = "") -> str:
    """The password file of a registry: `auth.htpasswd` of distribution, which takes bcrypt alone.

    Salts are random. One that is derived from the password would give it away to whoever has the
    file, by a faster way than bcrypt; one that is derived from names would be the same everywhere.

    Args:
        passwords: the password of each reader, by user name.
        before: the file as it was: lines that still hold are kept.

    Raises:
        CertificateError: a user name or a password cannot be used; the message shows no password.
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
    # Clients take a name whose last label is a number for an address (RFC 1123, 2.1).
    is_name = all(re.fullmatch(_LABEL, label, re.ASCII) for label in labels)
    if not is_name or labels[-1].isdigit() or len(name) > LONGEST_DNS_NAME:
        raise CertificateError(
            f"found {name!r}; allowed: a DNS name such as cache.example, or an IPv4 address"
        )
    return x509.DNSName(name.lower())


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Issued(certificate.public_bytes(Encoding.PEM).decode(), private.decode())
