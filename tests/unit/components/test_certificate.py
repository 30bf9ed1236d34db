"""Certificates and htpasswd files as resources that are created, kept and renewed."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import bcrypt
import pytest
from cryptography import x509
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.output import UNKNOWN

from components.cached_images import CachedImagesProvider
from components.certificate import (
    OwnAuthority,
    OwnAuthorityProvider,
    OwnCertificate,
    OwnCertificateProvider,
    PasswordFile,
    PasswordFileProvider,
)
from components.certificate_authority import (
    AUTHORITY_LASTS,
    Issued,
    expires,
    is_signed_by_any,
    issue_authority,
    issue_server,
    needs_next,
    signer,
    with_next,
)
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


def lasting(days: float, name: str = "team") -> dict[str, str]:
    """An authority that expires after that many days."""
    then = datetime.now(UTC) - AUTHORITY_LASTS + timedelta(days=days)
    return asdict(issue_authority(name, then))


AUTHORITY = authority()
PROPS = {"names": NAMES, "authorities": AUTHORITY["authorities"]}


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
    server = issue_server(Issued(**state["authorities"][0]), state["names"], then)
    return {**state, "certificate": server.certificate, "key": server.key}


def names_in(state: dict[str, Any]) -> list[str]:
    certificate = x509.load_pem_x509_certificate(state["certificate"].encode())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one.value) for one in found]


def signers(state: dict[str, Any]) -> list[int]:
    """The positions of the authorities that have signed the certificate."""
    return [
        place
        for place, one in enumerate(state["authorities"])
        if is_signed_by_any(state["certificate"], [Issued(**one)])
    ]


def test_a_certificate_is_signed_by_its_ca() -> None:
    state = made()

    assert names_in(state) == NAMES
    assert signers(state) == [0]
    assert "BEGIN PRIVATE KEY" in state["key"]
    assert AUTHORITY["authorities"][0]["key"] not in (state["key"], AUTHORITY["ca"])


# Renewal


def test_a_certificate_is_renewed_in_its_last_30_days_by_the_same_ca() -> None:
    young = aged(made(), days=365 - 31)
    assert CERTIFICATES.diff("certificate", young, PROPS).changes is False

    state = aged(made(), days=365 - 29)
    diff = CERTIFICATES.diff("certificate", state, PROPS)
    after = updated(state)

    assert (diff.changes, diff.replaces) == (True, [])
    assert signers(after) == [0]
    assert CERTIFICATES.diff("certificate", after, PROPS).changes is False


OTHER = authority()


@pytest.mark.parametrize(
    "changed", [{"names": ["other.example"]}, {"authorities": OTHER["authorities"]}]
)
def test_another_name_or_authority_changes_the_certificate(changed: dict[str, Any]) -> None:
    state, news = made(), {**PROPS, **changed}
    diff = CERTIFICATES.diff("certificate", state, news)
    after = updated(state, **changed)

    assert (diff.changes, diff.replaces) == (True, [])
    assert {key: after[key] for key in PROPS} == news
    assert names_in(after) == news["names"]
    assert signers(after) == [0]


def test_a_preview_announces_a_renewal_while_the_authorities_are_unknown() -> None:
    news = {**PROPS, "authorities": UNKNOWN}

    assert CERTIFICATES.diff("certificate", made(), news).changes is True


# The next authority


def test_the_next_authority_is_introduced_two_years_before_the_end_of_the_newest() -> None:
    state = {**NAMED, "authorities": [lasting(2 * 365 - 1)]}

    assert AUTHORITIES.diff("authority", AUTHORITY, NAMED).changes is False
    early = {**NAMED, "authorities": [lasting(2 * 365 + 1)]}
    assert AUTHORITIES.diff("authority", early, NAMED).changes is False
    diff = AUTHORITIES.diff("authority", state, NAMED)
    assert (diff.changes, diff.replaces) == (True, [])
    after = AUTHORITIES.update("authority", state, NAMED).outs
    assert after is not None
    assert after["authorities"][0] == state["authorities"][0]
    assert after["ca"] == "".join(one["certificate"] for one in after["authorities"])
    assert len(after["authorities"]) == 2
    assert AUTHORITIES.diff("authority", after, NAMED).changes is False


def test_a_renamed_authority_is_replaced() -> None:
    diff = AUTHORITIES.diff("authority", AUTHORITY, {"commonName": "other"})

    assert diff.replaces == ["commonName"]


def test_an_expired_authority_is_dropped_when_the_next_one_is_introduced() -> None:
    state = {**NAMED, "authorities": [lasting(-1), lasting(700)]}

    after = AUTHORITIES.update("authority", state, NAMED).outs

    assert after is not None
    assert after["authorities"][0] == state["authorities"][1]
    assert len(after["authorities"]) == 2


def test_the_next_authority_signs_once_the_current_one_expires_in_30_days() -> None:
    late, due = lasting(31), lasting(29)
    following = lasting(3600, "next")
    before = made(authorities=[late])
    with_both = {**PROPS, "authorities": [late, following]}

    assert CERTIFICATES.diff("certificate", before, with_both).changes is False
    assert signers(updated(before, authorities=[late, following])) == [0]
    # Signed by the current authority, so it expires with it.
    state = made(authorities=[due])
    both = {**PROPS, "authorities": [due, following]}
    assert CERTIFICATES.diff("certificate", state, both).changes is True
    after = updated(state, authorities=[due, following])
    assert signers(after) == [1]
    assert CERTIFICATES.diff("certificate", after, both).changes is False


@pytest.mark.parametrize("start", [0, 200, 364])
def test_clients_trust_an_authority_for_11_months_before_it_signs(start: int) -> None:
    """Whenever `up` runs, as long as it runs before the certificate expires."""
    begin = datetime.now(UTC)
    authorities: tuple[Issued, ...] = with_next([], "team", begin)
    first, now = authorities[0], begin + timedelta(days=start)
    while signer(authorities, now) == first:
        if needs_next(authorities, now):
            authorities = with_next(authorities, "team", now)
        served = issue_server(signer(authorities, now), NAMES, now)
        last, now = now, expires(served.certificate) - timedelta(minutes=1)
        assert now > last

    introduced = expires(authorities[-1].certificate) - AUTHORITY_LASTS
    assert now - introduced >= timedelta(days=334)
    assert now < expires(first.certificate)


def test_invalid_names_are_refused_by_check() -> None:
    (failure,) = CERTIFICATES.check({}, {**PROPS, "names": ["a b"]}).failures

    assert failure.property == "names"
    assert "found 'a b'" in failure.reason
    for unknown in (UNKNOWN, ["cache.example", UNKNOWN]):
        assert CERTIFICATES.check({}, {**PROPS, "names": unknown}).failures == []
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

    assert signs.secret_outputs == ("authorities",)
    assert certificate.secret_outputs == ("authorities", "key")
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
