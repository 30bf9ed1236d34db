import base64
import re
import string
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.unit.components.certificates import authority
from tests.unit.components.declared_caches import (
    GATEWAY,
    ON_SWARM,
    S3_KEYS,
    declare,
    environment,
    files,
)
from tests.unit.components.stack_graph import (
    AUTHORITY_MADE,
    CERTIFICATE_MADE,
    CONTAINER,
    OWN_AUTHORITY,
    OWN_CERTIFICATE,
    PASSWORD_FILE,
    SERVICE,
    VOLUME,
    Secret,
)

UPSTREAMS = {"upstreams": {"docker.io": None, "quay.io": None}}
GIVEN = {"kind": "given", "certificate": authority("given").certificate}
KEY = authority("given").key
TLS_VARIABLES = {
    "REGISTRY_HTTP_TLS_CERTIFICATE": "/credentials/server.pem",
    "REGISTRY_HTTP_TLS_KEY": "/credentials/server.pem",
}
CA_LABEL = "talos-registry-cache.ca"


def labels_of(inputs: Mapping[str, Any]) -> dict[str, str]:
    return {one["label"]: one["value"] for one in inputs["labels"]}


# Without TLS


def test_by_default_caches_are_open_and_use_plain_http() -> None:
    graph = declare(UPSTREAMS)

    assert not [name for name in environment(graph) if re.search("TLS|AUTH|SSL", name)]
    assert files(graph).keys() == {"helper"}
    assert graph.outputs["ca"] is None
    assert graph.outputs["caches"]["quay.io"]["endpoint"] == "http://127.0.0.1:5002"
    for kind in (OWN_AUTHORITY, OWN_CERTIFICATE, PASSWORD_FILE):
        assert graph.all(kind) == []


# TLS


def test_own_tls_gives_every_front_a_certificate_of_the_stack_s_ca() -> None:
    graph = declare({**UPSTREAMS, "tls": {}}, stack="t" * 100)

    (authority,) = graph.all(OWN_AUTHORITY)
    (certificate,) = graph.all(OWN_CERTIFICATE)
    assert (authority.parent, certificate.parent) == ("caches", "caches")
    assert certificate.inputs["authorities"] == Secret(AUTHORITY_MADE["authorities"])
    assert authority.inputs["commonName"] == f"Registry caches of {'t' * 100}"[:64]
    assert graph.outputs["ca"] == AUTHORITY_MADE["ca"]
    for host in ("docker.io", "quay.io"):
        assert not TLS_VARIABLES.keys() & environment(graph, host).keys()
        cache = graph.one(CONTAINER, f"{host}-container").inputs
        assert labels_of(cache)[CA_LABEL] == AUTHORITY_MADE["ca"]
        assert CA_LABEL not in labels_of(graph.one(VOLUME, f"{host}-storage").inputs)
    both = f"{CERTIFICATE_MADE['certificate']}\n{CERTIFICATE_MADE['key']}"
    assert files(graph, "fronts")["server.pem"] == Secret(both)
    assert graph.outputs["caches"]["quay.io"]["endpoint"] == "https://127.0.0.1:5002"


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
def test_the_certificate_covers_every_name_clients_connect_to(
    caches: dict[str, Any], names: list[str]
) -> None:
    (certificate,) = declare({**UPSTREAMS, "tls": {}, **caches}).all(OWN_CERTIFICATE)

    assert certificate.inputs["names"] == sorted(names)


@pytest.mark.parametrize("ca", [None, authority("ca").certificate], ids=["known", "told"])
def test_a_given_certificate_is_used_and_its_ca_is_an_output(
    ca: str | None,
) -> None:
    graph = declare(
        {**UPSTREAMS, "tls": {**GIVEN, "ca": ca}}, secrets={"tlsKey": authority("given").key}
    )

    both = f"{GIVEN['certificate']}\n{authority('given').key}"
    assert files(graph, "fronts")["server.pem"] == Secret(both)
    assert graph.outputs["ca"] == ca
    cache = graph.one(CONTAINER, "quay.io-container").inputs
    assert labels_of(cache).get(CA_LABEL) == ca
    assert graph.all(OWN_AUTHORITY) == graph.all(OWN_CERTIFICATE) == []


# Readers


def test_readers_must_authenticate_with_htpasswd() -> None:
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
def test_nodes_authenticate_as_the_reader_nodes_or_the_first_one(
    names: list[str], reader: str
) -> None:
    readers = {name: f"password of {name}" for name in names}
    graph = declare({**UPSTREAMS, "tls": {}}, secrets={"readers": readers})

    assert graph.outputs["reader"] == Secret({"username": reader, "password": readers[reader]})
    assert declare({**UPSTREAMS, "tls": {}}).outputs["reader"] is None


def test_caches_with_own_credentials_have_the_same_readers() -> None:
    caches = {"upstreams": {"docker.io": {"username": "me"}, "quay.io": None}, "tls": {}}
    graph = declare(
        caches, secrets={"passwords": {"docker.io": "hunter2"}, "readers": {"adam": "s3cret"}}
    )

    assert files(graph).keys() == files(graph, "docker.io-credentials").keys()
    assert files(graph).keys() == {"helper", "readers"}


# Parent caches


VIA = {"mirrors": {"quay.io": "https://team.test:5002"}}


def test_a_parent_cache_replaces_the_upstream() -> None:
    graph = declare({**UPSTREAMS, "via": VIA})

    assert environment(graph)["REGISTRY_PROXY_REMOTEURL"] == "https://team.test:5002"
    assert environment(graph, "docker.io")["REGISTRY_PROXY_REMOTEURL"] == (
        "https://registry-1.docker.io"
    )
    assert files(graph).keys() == {"helper"}
    assert "SSL_CERT_DIR" not in environment(graph)
    offline = declare({**UPSTREAMS, "via": VIA, "offline": True})
    assert "REGISTRY_PROXY_REMOTEURL" not in environment(offline)


def test_only_the_caches_of_a_parent_get_its_password() -> None:
    graph = declare(
        {**UPSTREAMS, "via": {**VIA, "username": "me"}}, secrets={"passwords": {"via": "hunter2"}}
    )

    own, shared = files(graph, "quay.io-credentials"), files(graph)
    assert isinstance(own["helper"], Secret)
    assert "hunter2" in own["helper"].value
    assert not isinstance(shared["helper"], Secret)


def test_a_cache_trusts_the_ca_of_its_own_upstream_or_parent_and_of_the_storage() -> None:
    store, team, own = (authority(name).certificate for name in ("store", "team", "own"))
    graph = declare(
        {
            "upstreams": {"docker.io": {"ca": own}, "quay.io": None, "ghcr.io": None},
            "via": {**VIA, "ca": team},
            "storage": {"kind": "s3", "bucket": "caches", "ca": store},
        },
        secrets={"s3Keys": S3_KEYS},
    )

    for host, volume, trusted in (
        ("docker.io", "docker.io-credentials", f"{store}\n{own}"),
        ("quay.io", "quay.io-credentials", f"{store}\n{team}"),
        ("ghcr.io", "anonymous", store),
    ):
        assert files(graph, volume)["authorities.crt"] == trusted
        assert environment(graph, host)["SSL_CERT_DIR"] == "/credentials"
        registry = graph.one(CONTAINER, f"{host}-registry").inputs
        assert labels_of(registry)["talos-registry-cache.authorities"] == trusted
        assert "talos-registry-cache.files" in labels_of(registry), "a change restarts it"


# On a Swarm


def test_a_swarm_with_tls_and_readers_has_the_same_environment_and_files() -> None:
    closed = {"tls": {}, "via": {**VIA, "ca": authority("team").certificate}}
    # Only caches on every node have fronts.
    some_nodes = {"placement": {"kind": "swarm", "replicas": 3}}
    secrets = {"readers": {"adam": "s3cret"}, "s3Keys": S3_KEYS}
    graph = declare({**ON_SWARM, **closed, **some_nodes}, secrets=secrets)
    on_engine = declare({**UPSTREAMS, **closed, "storage": ON_SWARM["storage"]}, secrets=secrets)

    service = graph.one(SERVICE, "quay.io-service").inputs
    spec = service["taskSpec"]["containerSpec"]
    assert spec["env"].items() >= TLS_VARIABLES.items()
    assert {
        name for name, value in environment(on_engine).items() if spec["env"].get(name) != value
    } == {"REGISTRY_HTTP_NET", "REGISTRY_HTTP_ADDR"}
    names = {one["fileName"].removeprefix("/credentials/") for one in spec["secrets"]}
    assert names == {*files(on_engine, "quay.io-credentials"), "server.pem"}
    assert {one["fileMode"] for one in spec["secrets"] if "helper" not in one["fileName"]} == {
        0o444
    }
    labels = labels_of(service)
    assert labels[CA_LABEL] == AUTHORITY_MADE["ca"]
    assert labels["talos-registry-cache.authorities"] == authority("team").certificate
    (certificate,) = graph.all(OWN_CERTIFICATE)
    assert certificate.inputs["names"] == ["caches.test"]


# Secrets


def in_plain(value: Any) -> Iterator[str]:
    """The texts in a value outside of secrets, decoded as well if they are base64."""
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


A_SECRET = st.text(string.ascii_letters + string.digits, min_size=8, max_size=40).map(
    "zQ7{}".format
)


# Shrinking would take minutes.
@settings(max_examples=25, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(
    texts=st.lists(A_SECRET, min_size=5, max_size=5, unique=True),
    place=st.sampled_from([{}, ON_SWARM]),
    preview=st.booleans(),
)
def test_no_secret_is_declared_in_plain_text(
    texts: list[str], place: Mapping[str, Any], *, preview: bool
) -> None:
    of_upstream, of_team, of_reader, access_key, secret_key = texts
    caches = {
        **place,
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

    assert {"plain", "a long key"} <= set(in_plain([{"b": "plain"}, "YSBsb25nIGtleQ=="]))
    seen = [*in_plain([one.inputs for one in graph.resources]), *in_plain(graph.outputs)]
    assert len(seen) > 100
    assert not [
        text for text in seen if any(secret in text for secret in [*texts, KEY.splitlines()[1]])
    ]
