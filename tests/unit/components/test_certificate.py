"""Certificates and password files as resources: made once, kept, and made anew when it is time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import bcrypt
import pytest
from cryptography import x509
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime import rpc

from components.certificate import (
    OwnAuthority,
    OwnAuthorityProvider,
    OwnCertificate,
    OwnCertificateProvider,
    PasswordFile,
    PasswordFileProvider,
)
from components.certificate_authority import Issued, issue_authority, issue_server
from tests.unit.components import stack_graph
from tests.unit.components.stack_graph import Secret

NAMES = ["cache.example", "172.17.0.1"]
NAMED = {"commonName": "talos-registry-cache team"}
AUTHORITIES = OwnAuthorityProvider()
CERTIFICATES = OwnCertificateProvider()
PASSWORDS = PasswordFileProvider()


def authority(**changed: Any) -> dict[str, Any]:
    outs = AUTHORITIES.create({**NAMED, **changed}).outs
    assert outs is not None
    return outs


AUTHORITY = authority()
PROPS = {"names": NAMES, "ca": AUTHORITY["ca"], "caKey": AUTHORITY["caKey"]}


def made(**changed: Any) -> dict[str, Any]:
    outs = CERTIFICATES.create({**PROPS, **changed}).outs
    assert outs is not None
    return outs


def updated(olds: dict[str, Any], **changed: Any) -> dict[str, Any]:
    outs = CERTIFICATES.update("certificate", olds, {**PROPS, **changed}).outs
    assert outs is not None
    return outs


def aged(state: dict[str, Any], *, days: int) -> dict[str, Any]:
    """The same, with a server's certificate that was made so long ago."""
    then = datetime.now(UTC) - timedelta(days=days)
    server = issue_server(Issued(state["ca"], state["caKey"]), state["names"], then)
    return {**state, "certificate": server.certificate, "key": server.key}


def names_in(state: dict[str, Any]) -> list[str]:
    certificate = x509.load_pem_x509_certificate(state["certificate"].encode())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one.value) for one in found]


def is_signed(state: dict[str, Any]) -> bool:
    ca = x509.load_pem_x509_certificate(state["ca"].encode())
    x509.load_pem_x509_certificate(state["certificate"].encode()).verify_directly_issued_by(ca)
    return True


def test_a_certificate_is_signed_by_its_authority() -> None:
    state = made()

    assert names_in(state) == NAMES
    assert is_signed(state)
    assert "BEGIN PRIVATE KEY" in state["key"]
    assert state["caKey"] not in (state["key"], state["ca"])


def test_an_authority_lasts_and_is_made_anew_near_its_end() -> None:
    old = issue_authority("old", datetime.now(UTC) - timedelta(days=3650 - 29))
    state = {**NAMED, "ca": old.certificate, "caKey": old.key}

    assert AUTHORITIES.diff("authority", AUTHORITY, NAMED).changes is False
    diff = AUTHORITIES.diff("authority", state, NAMED)
    assert (diff.changes, diff.replaces) == (True, [])
    after = AUTHORITIES.update("authority", state, NAMED).outs
    assert after is not None
    assert after["ca"] != state["ca"]
    assert AUTHORITIES.diff("authority", after, NAMED).changes is False


def test_nothing_changes_while_it_lasts() -> None:
    state = aged(made(), days=365 - 31)

    assert CERTIFICATES.diff("certificate", state, PROPS).changes is False


def test_another_name_makes_another_certificate_by_the_same_authority() -> None:
    state, news = made(), {**PROPS, "names": ["other.example"]}
    diff = CERTIFICATES.diff("certificate", state, news)
    after = updated(state, names=["other.example"])

    assert (diff.changes, diff.replaces) == (True, [])
    assert (after["ca"], after["caKey"]) == (state["ca"], state["caKey"])
    assert names_in(after) == ["other.example"]
    assert is_signed(after)


def test_a_certificate_near_its_end_is_made_anew_by_the_same_authority() -> None:
    state = aged(made(), days=365 - 29)
    diff = CERTIFICATES.diff("certificate", state, PROPS)
    after = updated(state)

    assert (diff.changes, diff.replaces) == (True, [])
    assert after["ca"] == state["ca"]
    assert CERTIFICATES.diff("certificate", after, PROPS).changes is False


def test_another_authority_signs_another_certificate() -> None:
    other = authority()
    news = {**PROPS, "ca": other["ca"], "caKey": other["caKey"]}
    state = made()
    assert CERTIFICATES.diff("certificate", state, news).changes is True

    after = updated(state, ca=other["ca"], caKey=other["caKey"])
    assert is_signed(after)
    assert after["certificate"] != state["certificate"]


def test_another_name_of_the_authority_replaces_it() -> None:
    diff = AUTHORITIES.diff("authority", AUTHORITY, {"commonName": "other"})

    assert diff.replaces == ["commonName"]


def test_what_is_no_name_is_refused_before_anything_is_made() -> None:
    (failure,) = CERTIFICATES.check({}, {**PROPS, "names": ["a b"]}).failures

    assert failure.property == "names"
    assert "found 'a b'" in failure.reason
    assert CERTIFICATES.check({}, {**PROPS, "names": rpc.UNKNOWN}).failures == []
    assert CERTIFICATES.check({}, PROPS).failures == []


def test_private_keys_and_passwords_are_secrets() -> None:
    def program() -> None:
        signs = OwnAuthority("signs", common_name="team")
        OwnCertificate("closed", names=NAMES, authority=signs)
        PasswordFile("readers", readers={"adam": "s3cret"})

    graph = stack_graph.run(program)
    certificate = graph.one("pulumi-python:dynamic/caches:OwnCertificate", "closed")
    signs = graph.one("pulumi-python:dynamic/caches:OwnAuthority", "signs")
    passwords = graph.one("pulumi-python:dynamic/caches:PasswordFile", "readers")

    assert signs.secret_outputs == ("caKey",)
    assert certificate.secret_outputs == ("caKey", "key")
    assert passwords.secret_outputs == ("content",)
    assert passwords.inputs["readers"] == Secret({"adam": "s3cret"})


# Password files


def test_a_password_file_changes_when_readers_do_and_then_only_their_lines() -> None:
    olds = PASSWORDS.create({"readers": {"adam": "one", "eve": "two"}}).outs
    assert olds is not None
    same, news = {"readers": olds["readers"]}, {"readers": {"adam": "one", "eve": "new"}}

    assert PASSWORDS.diff("passwords", olds, same).changes is False
    assert PASSWORDS.diff("passwords", olds, news).changes is True
    after = PASSWORDS.update("passwords", olds, news).outs
    assert after is not None
    adam, eve = after["content"].splitlines()
    assert adam == olds["content"].splitlines()[0]
    assert bcrypt.checkpw(b"new", eve.removeprefix("eve:").encode())


@pytest.mark.parametrize("provider", [CERTIFICATES, PASSWORDS])
def test_a_provider_is_the_same_at_every_run(provider: Any) -> None:
    assert serialize_provider(provider) == serialize_provider(type(provider)())
