import pytest

from components import settings
from talos_registry_cache.registry.catalogue import CATALOGUE, KnownUpstream
from tests.unit.components.parsed_settings import caches_of


@pytest.mark.parametrize(("host", "known"), CATALOGUE.items())
def test_every_entry_is_a_valid_setting_with_https(host: str, known: KnownUpstream) -> None:
    port = {"port": 5999} if known.port is None else {}
    parsed = settings.parse("dev", {"caches": {"upstreams": {host: port}}})

    upstream = caches_of(parsed).upstreams[host]

    assert upstream.remote_url == known.remote_url
    assert upstream.remote_url.startswith("https://")
    assert upstream.port == (known.port or 5999)


def test_all_registries_with_a_usual_port_fit_into_one_stack() -> None:
    """Two upstreams with one port would be a mistake."""
    with_port = [host for host, known in CATALOGUE.items() if known.port and host != "k8s.gcr.io"]

    parsed = settings.parse("dev", {"caches": {"upstreams": dict.fromkeys(with_port)}})

    assert list(caches_of(parsed).upstreams) == with_port
    assert CATALOGUE["k8s.gcr.io"].port == CATALOGUE["registry.k8s.io"].port
