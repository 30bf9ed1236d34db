"""Certificates of TLS servers, and the CAs that clients trust."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components import certificate_authority
from components.certificate_authority import Issued, issue_authority, issue_server, with_next
from talos_registry_cache.registry import served_certificate

NOW = datetime.now(UTC)
YEAR = timedelta(days=365)


@contextmanager
def serving(server: Issued, folder: Path) -> Iterator[str]:
    """Serve TLS for one client; returns the URL."""
    file = folder / "server.pem"
    file.write_text(server.certificate + server.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            raw, _ = listening.accept()
            with context.wrap_socket(raw, server_side=True):
                pass

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("issued", [NOW, NOW - 2 * YEAR], ids=["valid", "expired"])
def test_the_expiry_of_a_server_is_read_without_trusting_it(
    issued: datetime, tmp_path: Path
) -> None:
    authority = issue_authority("any", issued)
    server = issue_server(authority, ["elsewhere.test"], issued)

    with serving(server, tmp_path) as url:
        found = served_certificate.expires(url)

    assert found == certificate_authority.expires(server.certificate)


def test_plain_http_and_a_silent_server_have_no_expiry() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert served_certificate.expires(f"http://127.0.0.1:{port}") is None
    assert served_certificate.expires(f"https://127.0.0.1:{port}") is None


def test_the_next_ca_has_a_date_from_which_it_signs() -> None:
    then = NOW - 9 * YEAR
    first = with_next([], "team", then)
    both = with_next(first, "team", NOW)

    assert served_certificate.next_ca(first[0].certificate) is None
    found = served_certificate.next_ca("".join(one.certificate for one in both))
    assert found is not None
    ends = certificate_authority.expires(first[0].certificate)
    assert found.signs_from == ends - timedelta(days=30)
    assert abs(found.trusted_since - NOW) < timedelta(days=1)


def test_several_cas_of_a_given_certificate_are_no_succession() -> None:
    given = issue_authority("one", NOW).certificate + issue_authority("other", NOW).certificate

    assert served_certificate.next_ca(given) is None
