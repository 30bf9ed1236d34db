"""A cache as its container shows it."""

from typing import Any

from docker.models.containers import Container

from cachectl import stack
from cachectl.stack import Stack
from components import labels
from registry.endpoints import Endpoint


def container(**more: str) -> Container:
    bound = [{"HostIp": address, "HostPort": "5000"} for address in ("172.17.0.1", "127.0.0.1")]
    attributes: dict[str, Any] = {
        "Name": "/registry-team-docker.io",
        "Image": "sha256:1",
        "State": {"Status": "running", "Health": {"Status": "healthy"}},
        "HostConfig": {"PortBindings": {"5000/tcp": bound}},
        "Mounts": [{"Type": "volume", "Name": "data", "Destination": "/var/lib/registry"}],
        "Config": {"Env": [], "Labels": {**labels.of_upstream("team", "docker.io"), **more}},
    }
    return Container(attrs=attributes)


def test_a_cache_is_asked_without_tls_where_it_names_no_authority() -> None:
    cache = stack._cache(container())

    assert cache is not None
    assert (cache.endpoint, cache.mirror) == ("http://127.0.0.1:5000", "http://172.17.0.1:5000")
    assert cache.ca is None


def test_a_cache_that_names_its_authority_is_asked_with_tls_and_by_who_reads() -> None:
    cache = stack._cache(container(**{labels.CA: "PEM"}))

    assert cache is not None
    assert (cache.endpoint, cache.mirror) == ("https://127.0.0.1:5000", "https://172.17.0.1:5000")
    team = Stack("team", {"docker.io": cache})
    assert team.endpoints() == {"docker.io": Endpoint("https://127.0.0.1:5000", "PEM")}
    assert team.endpoints(("adam", "s3cret")) == {
        "docker.io": Endpoint("https://127.0.0.1:5000", "PEM", "adam", "s3cret")
    }
