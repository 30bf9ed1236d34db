"""The wildcard mirror: one container before all caches of a stack."""

from typing import Any

import pytest

from components import wildcard
from components.settings.front import DEFAULT_IMAGE
from tests.unit.components.certificates import authority
from tests.unit.components.declared_caches import ON_SWARM, S3_KEYS, declare
from tests.unit.components.parsed_settings import mistakes
from tests.unit.components.stack_graph import CONTAINER, OWN_CERTIFICATE, Graph, image_id

READERS = {"readers": {"nodes": "a-password"}}
GIVEN = {
    "tls": {"kind": "given", "certificate": authority("given").certificate},
    "secrets": {"tlsKey": authority("given").key},
}


def declared(secrets: Any = None, **caches: Any) -> Graph:
    """A stack with caches of two registries and a wildcard mirror."""
    upstreams = {"quay.io": None, "localhost:5005": {"port": 5005, "remoteUrl": "http://a.test"}}
    return declare({"upstreams": upstreams, "wildcard": {}, **caches}, secrets=secrets)


def container(graph: Graph) -> Any:
    return graph.one(CONTAINER, "wildcard").inputs


def labels(graph: Graph) -> dict[str, str]:
    return {one["label"]: one["value"] for one in container(graph)["labels"]}


def files(graph: Graph) -> dict[str, str]:
    uploads = graph.one(CONTAINER, "wildcard-credentials-writer").inputs["uploads"]
    return {one["file"].removeprefix("/credentials/"): one["content"] for one in uploads}


@pytest.mark.parametrize("image", [DEFAULT_IMAGE, "nginx:mine"])
def test_it_has_the_image_of_the_fronts(image: str) -> None:
    settings = {} if image == DEFAULT_IMAGE else {"front": {"image": image}}

    assert container(declared(**settings))["image"] == image_id(image)


def test_it_is_one_more_container_on_a_port_of_its_own() -> None:
    made = container(declared())

    assert made["name"] == "registry-dev-wildcard"
    assert {port["external"] for port in made["ports"]} == {5009}
    assert [(one["containerPath"], one["readOnly"]) for one in made["volumes"]] == [
        ("/credentials", True)
    ]
    assert (made["user"], made["readOnly"]) == ("65532:65532", True)
    assert made["capabilities"] == {"drops": ["ALL"]}
    assert made["securityOpts"] == ["no-new-privileges"]


def test_cachectl_takes_it_for_no_cache() -> None:
    graph = declared()

    assert labels(graph)["talos-registry-cache.wildcard"] == "http://172.17.0.1:5009"
    assert "talos-registry-cache.upstream" not in labels(graph)
    assert graph.outputs["caches"].keys() == {"quay.io", "localhost:5005"}


def test_a_cache_is_found_by_its_registry_host_with_the_colon_encoded_or_not() -> None:
    configuration = files(declared())["nginx.conf"]

    assert "quay.io registry-dev-quay.io;" in configuration
    assert "localhost:5005 registry-dev-localhost_5005;" in configuration
    assert "localhost%3A5005 registry-dev-localhost_5005;" in configuration


def test_an_added_upstream_replaces_it() -> None:
    more = {"quay.io": None, "ghcr.io": None}

    assert labels(declared()) != labels(declared(upstreams=more))


def test_names_of_caches_are_never_looked_up_on_the_internet() -> None:
    assert container(declared())["dns"] == ["127.0.0.1"]


def test_it_verifies_the_certificate_of_the_stacks_own_authority() -> None:
    graph = declared(tls={})

    assert wildcard.SERVER_NAME in graph.one(OWN_CERTIFICATE, "certificate").inputs["names"]
    assert files(graph).keys() == {"nginx.conf", "server.pem", "ca.crt"}
    assert "proxy_ssl_verify on;" in files(graph)["nginx.conf"]
    assert labels(graph)["talos-registry-cache.wildcard"] == "https://172.17.0.1:5009"
    assert "talos-registry-cache.ca" in labels(graph)


def test_it_does_not_verify_a_given_certificate_whose_names_are_unknown() -> None:
    configuration = files(declared(**GIVEN))["nginx.conf"]

    assert "proxy_pass https://$cache:5000" in configuration
    assert "proxy_ssl_verify" not in configuration


def test_a_cache_checks_passwords() -> None:
    closed = files(declared(tls={}, secrets=READERS))["nginx.conf"]

    assert "set $any registry-dev-" in closed
    assert "set $any" not in files(declared())["nginx.conf"]


def test_a_swarm_has_no_wildcard_mirror() -> None:
    found = mistakes({"caches": {**ON_SWARM, "wildcard": {}}, "s3Keys": S3_KEYS})

    assert [path for path, _ in found] == ["caches.wildcard"]
