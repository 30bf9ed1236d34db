"""A cache as its container shows it."""

from collections.abc import Mapping
from typing import Any

import pytest
from docker.models.containers import Container

from talos_registry_cache.cli import stack
from talos_registry_cache.cli.stack import Stack
from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.engine import labels
from talos_registry_cache.registry.s3_location import S3Location

LOCATION = S3Location(
    "caches", "team/docker.io", "eu-west-1", "https://store:9000", path_style=False
)


def container(environment: Mapping[str, str] | None = None, **more: str) -> Container:
    bound = [{"HostIp": address, "HostPort": "5000"} for address in ("172.17.0.1", "127.0.0.1")]
    attributes: dict[str, Any] = {
        "Name": "/registry-team-docker.io",
        "Image": "sha256:1",
        "State": {"Status": "running", "Health": {"Status": "healthy"}},
        "HostConfig": {"PortBindings": {"5000/tcp": bound}},
        "Mounts": [{"Type": "volume", "Name": "data", "Destination": "/var/lib/registry"}],
        "Config": {
            "Env": [f"{name}={value}" for name, value in (environment or {}).items()],
            "Labels": {**labels.of_upstream("team", "docker.io"), **more},
        },
    }
    return Container(attrs=attributes)


def test_a_cache_is_asked_without_tls_where_it_names_no_authority() -> None:
    cache = stack._cache(container())

    assert cache is not None
    assert (cache.endpoint, cache.mirror) == ("http://127.0.0.1:5000", "http://172.17.0.1:5000")
    assert cache.ca is None


def test_a_cache_that_names_its_authority_is_asked_with_tls_and_by_who_reads() -> None:
    closed = {"REGISTRY_HTTP_TLS_CERTIFICATE": "/credentials/server.crt"}
    cache = stack._cache(container(closed, **{labels.CA: "PEM"}))

    assert cache is not None
    assert (cache.endpoint, cache.mirror) == ("https://127.0.0.1:5000", "https://172.17.0.1:5000")
    engine: Any = None
    team = Stack("team", {"docker.io": cache}, engine)
    assert team.endpoints() == {"docker.io": Endpoint("https://127.0.0.1:5000", "PEM")}
    assert team.endpoints(("adam", "s3cret")) == {
        "docker.io": Endpoint("https://127.0.0.1:5000", "PEM", "adam", "s3cret")
    }


def test_a_cache_is_found_in_the_volume_that_it_mounts() -> None:
    cache = stack._cache(container())

    assert cache is not None
    assert (cache.name, cache.storage) == ("registry-team-docker.io", "data")


def test_a_cache_is_found_in_the_object_store_that_its_environment_names() -> None:
    cache = stack._cache(container(LOCATION.environment("/credentials/s3-keys")))

    assert cache is not None
    assert cache.storage == LOCATION


def test_a_cache_that_is_not_healthy_has_the_last_reason() -> None:
    inspected = container()
    said = [{"Output": text} for text in ("an older one", "cannot write to\n/var/lib/registry\n")]
    inspected.attrs["State"]["Health"] = {"Status": "unhealthy", "Log": said}

    cache = stack._cache(inspected)

    assert cache is not None
    assert cache.why_unhealthy == "cannot write to /var/lib/registry"


@pytest.mark.parametrize("health", [{}, {"Status": "healthy", "Log": [{"Output": "slow"}]}])
def test_a_cache_that_is_not_unhealthy_has_none(health: dict[str, Any]) -> None:
    inspected = container()
    inspected.attrs["State"]["Health"] = health

    cache = stack._cache(inspected)

    assert cache is not None
    assert cache.why_unhealthy == ""


def test_a_task_of_a_service_is_no_cache_of_its_own() -> None:
    task = container({}, **{stack.OF_SERVICE: "registry-team-docker-io"})

    assert stack._cache(task) is None
