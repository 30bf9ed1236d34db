"""The certificates that TLS servers present, the CAs that clients trust, and when they expire."""

import socket
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import ModuleType
from urllib.parse import urlsplit

# `up` renews the certificates of a stack this long before they expire, and `cachectl status` and an
# alert warn from then on (monitoring/rules.yml).
RENEWED_BEFORE = timedelta(days=30)
WITHIN_S = 3.0


def expires(url: str) -> datetime | None:
    """When the certificate that a server presents expires; it need not be valid or trusted.

    Args:
        url: the server's URL.

    Returns:
        The time, in UTC; None for plain HTTP, or if the server does not answer within seconds.
    """
    server = urlsplit(url)
    if server.scheme != "https" or server.hostname is None:
        return None
    # Only the certificate is read: nothing else is sent or used.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((server.hostname, server.port or 443), WITHIN_S) as raw,
            context.wrap_socket(raw, server_hostname=server.hostname) as connection,
        ):
            presented = connection.getpeercert(binary_form=True)
    except OSError:
        return None
    if presented is None:
        return None
    ends: datetime = _x509().load_der_x509_certificate(presented).not_valid_after_utc
    return ends


@dataclass(frozen=True, slots=True)
class NextCa:
    """The successor of a CA.

    Attributes:
        trusted_since: when it was introduced; clients configured earlier do not trust it.
        signs_from: when server certificates begin to be signed by it.
    """

    trusted_since: datetime
    signs_from: datetime


def next_ca(ca: str) -> NextCa | None:
    """The newest of a stack's own CAs (PEM, oldest first); None if there is only one.

    A CA and its successor have the same subject, unlike the CAs of a given certificate.
    """
    if ca.count("-----BEGIN CERTIFICATE-----") < 2:  # noqa: PLR2004 - a CA and its successor
        return None
    *_, current, newest = _x509().load_pem_x509_certificates(ca.encode())
    if current.subject != newest.subject:
        return None
    return NextCa(newest.not_valid_before_utc, current.not_valid_after_utc - RENEWED_BEFORE)


def _x509() -> ModuleType:
    """The library, imported only where a certificate is read, so that other commands start fast."""
    from cryptography import x509  # noqa: PLC0415 - see above

    return x509
