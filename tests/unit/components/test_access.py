import base64
import re
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.unit.components.certificates import authority
from tests.unit.components.declared_caches import GATEWAY, ON_SWARM, S3_KEYS, declare
from tests.unit.components.stack_graph import (
    AUTHORITY_MADE,
    CERTIFICATE_MADE,
    CONTAINER,
    OWN_AUTHORITY,
    OWN_CERTIFICATE,
    PASSWORD_FILE,
    SECRET,
    SERVICE,
    VOLUME,
    Graph,
    Secret,
)

UPSTREAMS = {"upstreams": {"docker.io": None, "quay.io": None}}
GIVEN = {"kind": "given", "certificate": authority("given").certificate}
KEY = authority("given").key
TLS_VARIABLES = {
    "REGISTRY_HTTP_TLS_CERTIFICATE": "/credentials/server.crt",
    "REGISTRY_HTTP_TLS_KEY": "/credentials/server.key",
}
CA_LABEL = "talos-registry-cache.ca"


def environment(graph: Graph, host: str = "quay.io") -> dict[str, str]:
    envs = graph.one(CONTAINER, f"{host}-container").inputs["envs"]
    return dict(variable.split("=", 1) for variable in envs)


def files(graph: Graph, name: str = "anonymous") -> dict[str, Any]:
    uploads = graph.one(CONTAINER, f"{name}-writer").inputs["uploads"]
    return {one["file"].removeprefix("/credentials/"): one["content"] for one in uploads}


def labels_of(inputs: Mapping[str, Any]) -> dict[str, str]:
    return {one["label"]: one["value"] for one in inputs["labels"]}


# Open to everyone


def test_caches_are_open_and_speak_plain_http_unless_settings_say_otherwise() -> None:
    graph = declare(UPSTREAMS)

    assert not [name for name in environment(graph) if re.search("TLS|AUTH|SSL", name)]
    assert files(graph).keys() == {"helper"}
    assert graph.outputs["ca"] is None
    assert graph.outputs["caches"]["quay.io"]["endpoint"] == "http://127.0.0.1:5002"
    for kind in (OWN_AUTHORITY, OWN_CERTIFICATE, PASSWORD_FILE):
        assert graph.all(kind) == []


# TLS


@pytest.mark.parametrize("caches", [{"tls": {}}, {"tls": {"kind": "own"}}])
def test_the_certificate_of_the_stack_s_own_authority_is_that_of_every_cache(
    caches: dict[str, Any],
) -> None:
    graph = declare({**UPSTREAMS, **caches})

    (authority,) = graph.all(OWN_AUTHORITY)
    (certificate,) = graph.all(OWN_CERTIFICATE)
    assert (authority.parent, certificate.parent) == ("caches", "caches")
    assert certificate.inputs["caKey"] == Secret(AUTHORITY_MADE["caKey"])
    for host in ("docker.io", "quay.io"):
        assert environment(graph, host).items() >= TLS_VARIABLES.items()
    assert files(graph)["server.crt"] == CERTIFICATE_MADE["certificate"]
    assert files(graph)["server.key"] == Secret(CERTIFICATE_MADE["key"])
    assert graph.outputs["caches"]["quay.io"]["endpoint"] == "https://127.0.0.1:5002"


def test_what_clients_have_to_trust_is_an_output_and_a_label_of_each_cache() -> None:
    graph = declare({**UPSTREAMS, "tls": {}})

    assert graph.outputs["ca"] == AUTHORITY_MADE["ca"]
    for host in ("docker.io", "quay.io"):
        cache = graph.one(CONTAINER, f"{host}-container").inputs
        assert labels_of(cache)[CA_LABEL] == AUTHORITY_MADE["ca"]
        assert CA_LABEL not in labels_of(graph.one(VOLUME, f"{host}-storage").inputs)


@pytest.mark.parametrize(
    ("caches", "names"),
    [
        ({}, ["127.0.0.1", GATEWAY]),
        (
            {"tls": {"names": ["b.test", "a.test", GATEWAY]}},
            ["127.0.0.1", GATEWAY, "a.test", "b.test"],
        ),
        ({"mirrorHost": "host.docker.internal"}, ["127.0.0.1", "host.docker.internal"]),
        ({"publishOn": ["10.0.0.1"]}, ["10.0.0.1", GATEWAY]),
        ({"mirrorHost": "caches.test", "publishOn": ["0.0.0.0"]}, ["caches.test"]),
    ],
)
def test_the_certificate_has_each_name_by_which_clients_come(
    caches: dict[str, Any], names: list[str]
) -> None:
    (certificate,) = declare({**UPSTREAMS, "tls": {}, **caches}).all(OWN_CERTIFICATE)

    assert certificate.inputs["names"] == sorted(names)


def test_the_authority_has_a_name_that_people_know_and_certificates_take() -> None:
    def named(stack: str) -> Any:
        (authority,) = declare({**UPSTREAMS, "tls": {}}, stack=stack).all(OWN_AUTHORITY)
        return authority.inputs["commonName"]

    assert named("team") == "Registry caches of team"
    assert len(named("t" * 100)) == 64


@pytest.mark.parametrize("ca", [None, authority("ca").certificate], ids=["known", "told"])
def test_a_given_certificate_is_that_of_every_cache_and_its_authority_is_told(
    ca: str | None,
) -> None:
    graph = declare(
        {**UPSTREAMS, "tls": {**GIVEN, "ca": ca}}, secrets={"tlsKey": authority("given").key}
    )

    assert environment(graph).items() >= TLS_VARIABLES.items()
    assert files(graph)["server.crt"] == GIVEN["certificate"]
    assert files(graph)["server.key"] == Secret(authority("given").key)
    assert graph.outputs["ca"] == ca
    cache = graph.one(CONTAINER, "quay.io-container").inputs
    assert labels_of(cache).get(CA_LABEL) == ca
    assert graph.all(OWN_AUTHORITY) == graph.all(OWN_CERTIFICATE) == []


# Readers


def test_readers_are_asked_for_their_password() -> None:
    graph = declare({**UPSTREAMS, "tls": {}}, secrets={"readers": {"adam": "s3cret"}})

    (made,) = graph.all(PASSWORD_FILE)
    assert made.inputs["readers"] == Secret({"adam": "s3cret"})
    assert (
        environment(graph).items()
        >= {
            "REGISTRY_AUTH": "htpasswd",
            "REGISTRY_AUTH_HTPASSWD_REALM": "Registry caches",
            "REGISTRY_AUTH_HTPASSWD_PATH": "/credentials/readers",
        }.items()
    )
    assert files(graph)["readers"] == Secret("the password file")


@pytest.mark.parametrize(
    ("names", "reader"), [(["eve", "adam"], "adam"), (["adam", "nodes", "eve"], "nodes")]
)
def test_nodes_come_as_the_reader_of_that_name_or_the_first_and_that_is_a_secret(
    names: list[str], reader: str
) -> None:
    readers = {name: f"password of {name}" for name in names}
    graph = declare({**UPSTREAMS, "tls": {}}, secrets={"readers": readers})

    assert graph.outputs["reader"] == Secret({"username": reader, "password": readers[reader]})
    assert declare({**UPSTREAMS, "tls": {}}).outputs["reader"] is None


def test_every_cache_has_the_files_that_close_it_be_its_credentials_its_own_or_not() -> None:
    caches = {"upstreams": {"docker.io": {"username": "me"}, "quay.io": None}, "tls": {}}
    graph = declare(
        caches, secrets={"passwords": {"docker.io": "hunter2"}, "readers": {"adam": "s3cret"}}
    )

    closing = {"server.crt", "server.key", "readers"}
    assert files(graph).keys() == files(graph, "docker.io-credentials").keys()
    assert files(graph).keys() == {"helper", *closing}


# By way of a team's caches


VIA = {"mirrors": {"quay.io": "https://team.test:5002"}}


def test_a_team_s_cache_is_asked_instead_of_the_upstream() -> None:
    graph = declare({**UPSTREAMS, "via": VIA})

    assert environment(graph)["REGISTRY_PROXY_REMOTEURL"] == "https://team.test:5002"
    assert environment(graph, "docker.io")["REGISTRY_PROXY_REMOTEURL"] == (
        "https://registry-1.docker.io"
    )
    assert files(graph).keys() == {"helper"}
    assert "SSL_CERT_DIR" not in environment(graph)


def test_its_authority_is_trusted_and_its_password_given_to_it_alone() -> None:
    via = {**VIA, "ca": authority("team").certificate, "username": "me"}
    graph = declare({**UPSTREAMS, "via": via}, secrets={"passwords": {"via": "hunter2"}})

    own, shared = files(graph, "quay.io-credentials"), files(graph)
    assert isinstance(own["helper"], Secret)
    assert "hunter2" in own["helper"].value
    assert not isinstance(shared["helper"], Secret)
    assert own["authorities.crt"] == authority("team").certificate
    assert environment(graph)["SSL_CERT_DIR"] == "/credentials"


def test_offline_nobody_is_asked_not_even_a_team_s_cache() -> None:
    graph = declare({**UPSTREAMS, "via": VIA, "offline": True})

    assert "REGISTRY_PROXY_REMOTEURL" not in environment(graph)


def test_authorities_of_a_store_and_of_a_team_are_both_trusted() -> None:
    storage = {"kind": "s3", "bucket": "caches", "ca": authority("store").certificate}
    graph = declare(
        {**UPSTREAMS, "storage": storage, "via": {**VIA, "ca": authority("team").certificate}},
        secrets={"s3Keys": S3_KEYS},
    )

    authorities = files(graph)["authorities.crt"]
    assert authority("store").certificate in authorities
    assert authority("team").certificate in authorities


# On a Swarm


def test_a_closed_swarm_is_told_the_same_and_has_the_same_files() -> None:
    closed = {"tls": {}, "via": {**VIA, "ca": authority("team").certificate}}
    secrets = {"readers": {"adam": "s3cret"}, "s3Keys": S3_KEYS}
    graph = declare({**ON_SWARM, **closed}, secrets=secrets)
    on_engine = declare({**UPSTREAMS, **closed, "storage": ON_SWARM["storage"]}, secrets=secrets)

    service = graph.one(SERVICE, "quay.io-service").inputs
    spec = service["taskSpec"]["containerSpec"]
    assert environment(on_engine).items() <= spec["env"].items()
    names = {one["fileName"].removeprefix("/credentials/") for one in spec["secrets"]}
    assert names == files(on_engine).keys()
    assert {one["fileMode"] for one in spec["secrets"] if "helper" not in one["fileName"]} == {
        0o444
    }
    assert labels_of(service)[CA_LABEL] == AUTHORITY_MADE["ca"]
    (certificate,) = graph.all(OWN_CERTIFICATE)
    assert certificate.inputs["names"] == ["caches.test"]


def test_the_key_of_a_certificate_is_a_secret_of_the_swarm() -> None:
    graph = declare({**ON_SWARM, "tls": GIVEN}, secrets={"tlsKey": KEY, "s3Keys": S3_KEYS})

    data = graph.one(SECRET, "registry-dev-anonymous-server.key").inputs["data"]
    assert data == Secret(base64.b64encode(KEY.encode()).decode())


# No secret is seen


def in_plain(value: Any) -> Iterator[str]:
    """All texts that are in a value and in no secret, and what they are if they are base64."""
    match value:
        case Secret():
            return
        case str():
            yield value
            if re.fullmatch(r"[A-Za-z0-9+/]{8,}={0,2}", value) and len(value) % 4 == 0:
                yield base64.b64decode(value).decode(errors="replace")
        case Mapping():
            for key, inner in value.items():
                yield key
                yield from in_plain(inner)
        case list() | tuple():
            for inner in value:
                yield from in_plain(inner)


def test_a_text_in_plain_is_found_wherever_it_is() -> None:
    shown = {"a": [{"b": "plain"}, Secret("hidden")], "c": base64.b64encode(b"a long key").decode()}

    assert {"plain", "a long key"} <= set(in_plain(shown))
    assert "hidden" not in set(in_plain(shown))


A_SECRET = st.text(string.ascii_letters + string.digits, min_size=8, max_size=40).map(
    "zQ7{}".format
)
PLACES: list[Callable[[], Mapping[str, Any]]] = [
    lambda: {"placement": {"kind": "engine"}},
    lambda: ON_SWARM,
]


# Not made small when one fails, which takes minutes and makes nothing clearer.
@settings(max_examples=25, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(
    texts=st.lists(A_SECRET, min_size=5, max_size=5, unique=True),
    place=st.sampled_from(PLACES),
    preview=st.booleans(),
)
def test_whatever_the_secrets_are_none_is_seen_in_what_is_declared(
    texts: list[str], place: Callable[[], Mapping[str, Any]], *, preview: bool
) -> None:
    of_upstream, of_team, of_reader, access_key, secret_key = texts
    caches = {
        **place(),
        "upstreams": {"docker.io": {"username": "me"}, "quay.io": None, "ghcr.io": None},
        "via": {**VIA, "username": "us"},
        "storage": {"kind": "s3", "bucket": "caches"},
        "tls": GIVEN,
    }
    graph = declare(
        caches,
        secrets={
            "passwords": {"docker.io": of_upstream, "via": of_team},
            "readers": {"adam": of_reader},
            "s3Keys": {"accessKey": access_key, "secretKey": secret_key},
            "tlsKey": KEY,
        },
        preview=preview,
    )

    seen = [*in_plain([one.inputs for one in graph.resources]), *in_plain(graph.outputs)]
    assert len(seen) > 100
    assert not [
        text for text in seen if any(secret in text for secret in [*texts, KEY.splitlines()[1]])
    ]
