"""Certificates as a client takes them, and password files as the registry reads them."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bcrypt
import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

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

LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
DNS_NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
ADDRESSES = st.ip_addresses(v=4).map(str)


def shake_hands(folder: Path, server: Issued, ca: str, name: str) -> None:
    """Let a client that trusts `ca` alone connect to a server under a name."""
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


def test_a_client_that_trusts_the_authority_trusts_each_name(tmp_path: Path) -> None:
    names = ["cache.example", "172.17.0.1", "127.0.0.1"]
    server = issue_server(AUTHORITY, names, NOW)

    for name in names:
        shake_hands(tmp_path, server, AUTHORITY.certificate, name)


@pytest.mark.parametrize("name", ["other.example", "172.17.0.2", "sub.cache.example"])
def test_no_other_name_is_trusted(tmp_path: Path, name: str) -> None:
    server = issue_server(AUTHORITY, ["cache.example", "172.17.0.1"], NOW)

    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(tmp_path, server, AUTHORITY.certificate, name)


def test_another_authority_of_the_same_name_is_not_trusted(tmp_path: Path) -> None:
    server = issue_server(AUTHORITY, ["cache.example"], NOW)
    other = issue_authority("talos-registry-cache team", NOW)

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tmp_path, server, other.certificate, "cache.example")


def test_a_certificate_that_has_ended_is_not_trusted(tmp_path: Path) -> None:
    server = issue_server(AUTHORITY, ["cache.example"], NOW - timedelta(days=366))

    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(tmp_path, server, AUTHORITY.certificate, "cache.example")


def test_an_authority_signs_servers_alone(tmp_path: Path) -> None:
    """A server's key signs nothing that a client takes."""
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


def test_a_server_ends_after_a_year_and_never_after_its_authority() -> None:
    old = issue_authority("old", NOW - timedelta(days=3640))

    assert expires(issue_server(AUTHORITY, ["a"], NOW).certificate) - NOW <= timedelta(days=365)
    assert expires(issue_server(old, ["a"], NOW).certificate) == expires(old.certificate)


@settings(max_examples=25)
@given(names=st.lists(DNS_NAMES | ADDRESSES, min_size=1, max_size=5))
def test_the_names_of_a_certificate_are_those_that_were_asked_for(names: list[str]) -> None:
    server = issue_server(AUTHORITY, names, NOW)

    made = x509.load_pem_x509_certificate(server.certificate.encode())
    found = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one.value) for one in found] == list(dict.fromkeys(names))


@pytest.mark.parametrize(
    "name",
    ["", "a b", "-a", "a.", "*.example", "1.2.3", "256.1.1.1", "a.1", "::1", "ä", "a\n", "x" * 64],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(CertificateError, match="allowed: a DNS name such as"):
        issue_server(AUTHORITY, ["cache.example", name], NOW)


def test_a_server_without_a_name_and_an_authority_without_one_are_refused() -> None:
    with pytest.raises(CertificateError, match="allowed: one or more"):
        issue_server(AUTHORITY, [], NOW)
    for name in ("", "x" * 65, "a\nb"):
        with pytest.raises(CertificateError, match="up to 64 printable"):
            issue_authority(name, NOW)


def test_a_key_is_not_shown_with_its_certificate() -> None:
    assert "PRIVATE" not in repr(AUTHORITY)


# Password files


def test_each_reader_has_a_line_that_holds_its_password() -> None:
    readers = {"zoe": "pässwörd", "adam": "s3cret"}
    lines = [line.split(":") for line in htpasswd(readers).splitlines()]

    assert [name for name, _ in lines] == ["adam", "zoe"]
    assert all(bcrypt.checkpw(readers[name].encode(), text.encode()) for name, text in lines)


def test_a_hash_costs_each_request_no_more_than_htpasswds_own_do() -> None:
    assert htpasswd({"adam": "s3cret"}).startswith("adam:$2b$05$")


def test_lines_that_still_hold_stay_and_others_are_made_anew() -> None:
    before = htpasswd({"adam": "one", "eve": "two", "gone": "x"})
    after = htpasswd({"adam": "one", "eve": "changed", "new": "three"}, before)

    old, new = before.splitlines(), after.splitlines()
    assert new[0] == old[0]
    assert new[1] != old[1]
    assert [line.split(":")[0] for line in new] == ["adam", "eve", "new"]


@pytest.mark.parametrize("name", ["", "a:b", "#a", "a b", "a\n"])
def test_what_is_no_user_name_is_refused(name: str) -> None:
    with pytest.raises(CertificateError, match="found the reader"):
        htpasswd({name: "s3cret"})


@pytest.mark.parametrize("password", ["", "s3cret\n", "s3cret\0", "s3cret" * 13])
def test_a_password_that_bcrypt_or_a_client_would_cut_is_refused(password: str) -> None:
    with pytest.raises(CertificateError, match="the password of the reader adam") as refused:
        htpasswd({"adam": password})

    assert "s3cret" not in str(refused.value)
