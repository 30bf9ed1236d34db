"""The certificates that TLS servers present, and when they expire."""

import socket
import ssl
from datetime import datetime, timedelta
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
    # Not at the top: other commands start faster without this library.
    from cryptography import x509  # noqa: PLC0415 - see above

    return x509.load_der_x509_certificate(presented).not_valid_after_utc
