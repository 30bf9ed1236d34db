from collections import Counter

import pytest

from components import settings
from talos_registry_cache.registry.catalogue import CATALOGUE, KnownUpstream
from tests.unit.components.parsed_settings import caches_of

SUCCESSORS = {"k8s.gcr.io": "registry.k8s.io"}


@pytest.mark.parametrize(("host", "known"), CATALOGUE.items())
def test_every_entry_is_a_right_setting(host: str, known: KnownUpstream) -> None:
    port = {"port": 5999} if known.port is None else {}

    parsed = caches_of(settings.parse("dev", {"caches": {"upstreams": {host: port}}})).upstreams[
        host
    ]

    assert parsed.remote_url == known.remote_url
    assert parsed.port == (known.port or 5999)


@pytest.mark.parametrize("known", CATALOGUE.values(), ids=CATALOGUE)
def test_every_registry_is_reached_over_https(known: KnownUpstream) -> None:
    assert known.remote_url.startswith("https://")


def test_a_registry_is_at_its_own_host_but_for_docker_hub() -> None:
    elsewhere = {
        host: known.remote_url
        for host, known in CATALOGUE.items()
        if known.remote_url != f"https://{host}"
    }

    assert elsewhere == {"docker.io": "https://registry-1.docker.io"}


def test_no_two_registries_have_one_port_but_a_registry_and_its_successor() -> None:
    ports = Counter(
        known.port
        for host, known in CATALOGUE.items()
        if known.port is not None and host not in SUCCESSORS
    )

    assert set(ports.values()) == {1}
    for old, new in SUCCESSORS.items():
        assert CATALOGUE[old].port == CATALOGUE[new].port


def test_all_registries_with_a_customary_port_fit_into_one_stack() -> None:
    with_port = [host for host, known in CATALOGUE.items() if known.port and host not in SUCCESSORS]

    parsed = settings.parse("dev", {"caches": {"upstreams": dict.fromkeys(with_port)}})

    assert list(caches_of(parsed).upstreams) == with_port


def test_the_catalogue_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        CATALOGUE["quay.io"] = KnownUpstream("https://other.test")  # type: ignore[index]
    with pytest.raises(AttributeError):
        CATALOGUE["quay.io"].port = 1  # type: ignore[misc]
