"""Certificates as TLS clients verify them, and htpasswd files."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bcrypt
import pytest
from cryptography import x509

from components.certificate_authority import (
    CertificateError,
    Issued,
    expires,
    htpasswd,
    issue_authority,
    issue_server,
)

NOW = datetime.now(UTC)
AUTHORITY = issue_authority("talos-registry-cache team", NOW)
WITHIN_S = 60


def shake_hands(folder: Path, server: Issued, ca: str, name: str) -> None:
    """Connect to a server by name, with a client that trusts only `ca`."""
    (folder / "cert.pem").write_text(server.certificate)
    (folder / "key.pem").write_text(server.key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    asking = ssl.create_default_context(cadata=ca)
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with serving.wrap_socket(theirs, server_side=True):
                pass
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        ours.settimeout(WITHIN_S)
        with asking.wrap_socket(ours, server_hostname=name):
            pass
    finally:
        ours.close()
        thread.join(WITHIN_S)


def test_clients_that_trust_the_ca_accept_every_name(tmp_path: Path) -> None:
    names = ["cache.example", "172.17.0.1", "127.0.0.1"]
    server = issue_server(AUTHORITY, [*names, names[0]], NOW)

    assert "PRIVATE" not in repr(server)
    made = x509.load_pem_x509_certificate(server.certificate.encode())
    found = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one.value) for one in found] == names
    for name in names:
        shake_hands(tmp_path, server, AUTHORITY.certificate, name)


def test_server_keys_cannot_sign_certificates(tmp_path: Path) -> None:
    server = issue_server(AUTHORITY, ["cache.example"], NOW)
    made = x509.load_pem_x509_certificate(AUTHORITY.certificate.encode())
    basic = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)

    issuer = issue_authority("forged", NOW)
    forged = issue_server(issuer, ["cache.example"], NOW)
    chain = Issued(forged.certificate + server.certificate, forged.key)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tmp_path, chain, AUTHORITY.certificate, "cache.example")


def test_a_certificate_expires_after_a_year_and_never_after_its_ca() -> None:
    old = issue_authority("old", NOW - timedelta(days=3640))

    assert expires(issue_server(AUTHORITY, ["a"], NOW).certificate) - NOW <= timedelta(days=365)
    assert expires(issue_server(old, ["a"], NOW).certificate) == expires(old.certificate)


@pytest.mark.parametrize(
    "name",
    ["", "a b", "-a", "a.", "*.example", "1.2.3", "256.1.1.1", "a.1", "::1", "ä", "a\n", "x" * 64],
)
def test_invalid_names_are_refused(name: str) -> None:
    with pytest.raises(CertificateError, match="allowed: a DNS name such as"):
        issue_server(AUTHORITY, ["cache.example", name], NOW)


def test_missing_names_and_invalid_ca_names_are_refused() -> None:
    with pytest.raises(CertificateError, match="allowed: one or more"):
        issue_server(AUTHORITY, [], NOW)
    for name in ("", "x" * 65, "a\nb"):
        with pytest.raises(CertificateError, match="up to 64 printable"):
            issue_authority(name, NOW)


# Password files


def test_each_reader_has_a_line_with_its_hash() -> None:
    readers = {"zoe": "pässwörd", "adam": "s3cret"}
    lines = [line.split(":") for line in htpasswd(readers).splitlines()]

    assert [name for name, _ in lines] == ["adam", "zoe"]
    # The cost that htpasswd uses: the registry checks it with each request.
    assert htpasswd(readers).startswith("adam:$2b$05$")
    assert all(bcrypt.checkpw(readers[name].encode(), text.encode()) for name, text in lines)


def test_lines_of_unchanged_passwords_are_kept() -> None:
    before = htpasswd({"adam": "one", "eve": "two", "gone": "x"})
    after = htpasswd({"adam": "one", "eve": "changed", "new": "three"}, before)

    old, new = before.splitlines(), after.splitlines()
    assert new[0] == old[0]
    assert new[1] != old[1]
    assert [line.split(":")[0] for line in new] == ["adam", "eve", "new"]


@pytest.mark.parametrize("name", ["", "a:b", "#a", "a b", "a\n"])
def test_invalid_user_names_are_refused(name: str) -> None:
    with pytest.raises(CertificateError, match="found the reader"):
        htpasswd({name: "s3cret"})


@pytest.mark.parametrize("password", ["", "s3cret\n", "s3cret\0", "s3cret" * 13])
def test_passwords_that_bcrypt_or_clients_would_truncate_are_refused(password: str) -> None:
    with pytest.raises(CertificateError, match="the password of the reader adam") as refused:
        htpasswd({"adam": password})

    assert "s3cret" not in str(refused.value)
