"""Checks of certificates and private keys in settings.

Imported only for stacks that have some: cryptography takes long to load.
"""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

UNREADABLE = (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm)


def are_certificates(pem: str) -> bool:
    """Whether a text has one or more valid certificates in PEM."""
    try:
        return bool(x509.load_pem_x509_certificates(pem.encode()))
    except UNREADABLE:
        return False


def is_key(pem: str) -> bool:
    """Whether a text is a private key in PEM without a password."""
    try:
        load_pem_private_key(pem.encode(), None)
    except UNREADABLE:
        return False
    return True


def is_key_of(key: str, certificates: str) -> bool:
    """Whether a private key belongs to the first of several certificates, all in PEM."""
    server = x509.load_pem_x509_certificates(certificates.encode())[0]
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    own = load_pem_private_key(key.encode(), None).public_key()
    try:
        return own.public_bytes(*form) == server.public_key().public_bytes(*form)
    except UNREADABLE:
        return False
