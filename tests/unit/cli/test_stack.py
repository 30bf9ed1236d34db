"""A cache as its container shows it."""

from collections.abc import Mapping
from typing import Any

import pytest
from docker.models.containers import Container

from talos_registry_cache.cli import stack
from talos_registry_cache.cli.stack import Cache, Stack
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


def found(inspected: Container) -> Cache:
    cache = stack._cache(inspected)
    assert cache is not None
    return cache


def test_an_open_cache_on_a_volume() -> None:
    cache = found(container())

    assert (cache.endpoint, cache.mirror) == ("http://127.0.0.1:5000", "http://172.17.0.1:5000")
    assert cache.ca is None
    assert (cache.name, cache.storage) == ("registry-team-docker.io", "data")


def test_a_closed_cache_is_reached_with_its_ca_and_the_users_password() -> None:
    closed = {"REGISTRY_HTTP_TLS_CERTIFICATE": "/credentials/server.crt"}
    cache = found(container(closed, **{labels.CA: "PEM"}))

    assert (cache.endpoint, cache.mirror) == ("https://127.0.0.1:5000", "https://172.17.0.1:5000")
    engine: Any = None
    team = Stack("team", {"docker.io": cache}, engine)
    assert team.endpoints() == {"docker.io": Endpoint("https://127.0.0.1:5000", "PEM")}
    assert team.endpoints(("adam", "s3cret")) == {
        "docker.io": Endpoint("https://127.0.0.1:5000", "PEM", "adam", "s3cret")
    }


def test_the_object_store_of_a_cache_is_read_from_its_environment() -> None:
    assert found(container(LOCATION.environment("/credentials/s3-keys"))).storage == LOCATION


SLOW = [{"Output": text} for text in ("an older one", "cannot write to\n/var/lib/registry\n")]


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        ({"Status": "unhealthy", "Log": SLOW}, "cannot write to /var/lib/registry"),
        ({"Status": "healthy", "Log": SLOW}, ""),
        ({}, ""),
    ],
)
def test_only_an_unhealthy_cache_has_a_reason(health: dict[str, Any], reason: str) -> None:
    inspected = container()
    inspected.attrs["State"]["Health"] = health

    assert found(inspected).why_unhealthy == reason


def test_a_task_of_a_service_is_no_cache() -> None:
    assert stack._cache(container({}, **{stack.OF_SERVICE: "registry-team-docker-io"})) is None


# With a front


def registry(health: str = "healthy") -> Container:
    """The registry behind a front."""
    made = container({"REGISTRY_PROXY_REMOTEURL": "https://registry-1.docker.io"})
    made.attrs["Name"] = "/registry-team-docker.io-registry"
    made.attrs["Image"] = "sha256:registry"
    made.attrs["HostConfig"]["PortBindings"] = {}
    made.attrs["State"]["Health"] = {"Status": health, "Log": SLOW}
    return made


def front() -> Container:
    mirror = "https://172.17.0.1:5000"
    name = "registry-team-docker.io-registry"
    return container({}, **{labels.REGISTRY: name, labels.MIRROR: mirror})


def test_a_cache_with_a_front_is_read_from_both_containers() -> None:
    cache = stack._cache(front(), registry())

    assert cache is not None
    assert (cache.name, cache.process) == (
        "registry-team-docker.io",
        "registry-team-docker.io-registry",
    )
    assert (cache.endpoint, cache.mirror) == ("https://127.0.0.1:5000", "https://172.17.0.1:5000")
    assert cache.remote_url == "https://registry-1.docker.io"
    assert (cache.image, cache.storage, cache.has_front) == ("sha256:registry", "data", True)
    assert stack._cache(registry()) is None, "the registry is no cache of its own"


def test_a_front_is_as_healthy_as_its_registry() -> None:
    cache, alone = stack._cache(front(), registry("unhealthy")), stack._cache(front())

    assert cache is not None
    assert alone is not None
    assert (cache.health, cache.why_unhealthy) == (
        "unhealthy",
        "cannot write to /var/lib/registry",
    )
    assert alone.health == "without its registry"
