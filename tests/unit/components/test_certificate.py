"""Certificates and htpasswd files as resources that are created, kept and renewed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import bcrypt
import pytest
from cryptography import x509
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime import rpc

from components.cached_images import CachedImagesProvider
from components.certificate import (
    OwnAuthority,
    OwnAuthorityProvider,
    OwnCertificate,
    OwnCertificateProvider,
    PasswordFile,
    PasswordFileProvider,
)
from components.certificate_authority import Issued, issue_authority, issue_server
from components.local_cluster import LocalClusterProvider
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
    """The same state, with a certificate issued that many days ago."""
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


def test_a_certificate_is_signed_by_its_ca() -> None:
    state = made()

    assert names_in(state) == NAMES
    assert is_signed(state)
    assert "BEGIN PRIVATE KEY" in state["key"]
    assert state["caKey"] not in (state["key"], state["ca"])


def test_a_ca_is_renewed_only_near_its_expiry() -> None:
    old = issue_authority("old", datetime.now(UTC) - timedelta(days=3650 - 29))
    state = {**NAMED, "ca": old.certificate, "caKey": old.key}

    assert AUTHORITIES.diff("authority", AUTHORITY, NAMED).changes is False
    assert AUTHORITIES.diff("authority", AUTHORITY, {"commonName": "other"}).replaces == [
        "commonName"
    ]
    diff = AUTHORITIES.diff("authority", state, NAMED)
    assert (diff.changes, diff.replaces) == (True, [])
    after = AUTHORITIES.update("authority", state, NAMED).outs
    assert after is not None
    assert after["ca"] != state["ca"]
    assert AUTHORITIES.diff("authority", after, NAMED).changes is False


def test_a_certificate_is_renewed_only_near_its_expiry_by_the_same_ca() -> None:
    young = aged(made(), days=365 - 31)
    assert CERTIFICATES.diff("certificate", young, PROPS).changes is False

    state = aged(made(), days=365 - 29)
    diff = CERTIFICATES.diff("certificate", state, PROPS)
    after = updated(state)

    assert (diff.changes, diff.replaces) == (True, [])
    assert after["ca"] == state["ca"]
    assert CERTIFICATES.diff("certificate", after, PROPS).changes is False


OTHER = authority()


@pytest.mark.parametrize(
    "changed", [{"names": ["other.example"]}, {"ca": OTHER["ca"], "caKey": OTHER["caKey"]}]
)
def test_another_name_or_ca_changes_the_certificate(changed: dict[str, Any]) -> None:
    state, news = made(), {**PROPS, **changed}
    diff = CERTIFICATES.diff("certificate", state, news)
    after = updated(state, **changed)

    assert (diff.changes, diff.replaces) == (True, [])
    assert {key: after[key] for key in PROPS} == news
    assert names_in(after) == news["names"]
    assert is_signed(after)


def test_invalid_names_are_refused_by_check() -> None:
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
    for one in (signs, certificate, passwords):
        assert not isinstance(one.inputs["__provider"], Secret)


# Password files


def test_a_changed_password_changes_only_its_line_of_the_htpasswd_file() -> None:
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


@pytest.mark.parametrize(
    "provider", [CERTIFICATES, PASSWORDS, LocalClusterProvider(), CachedImagesProvider()]
)
def test_providers_are_serialized_to_the_same_text_in_every_run(provider: Any) -> None:
    assert serialize_provider(provider) == serialize_provider(type(provider)())
