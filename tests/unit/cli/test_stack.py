"""A cache as its container shows it."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from docker.models.containers import Container

from talos_registry_cache.cli import caches, stack
from talos_registry_cache.cli.stack import Cache, Stack
from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.engine import labels
from talos_registry_cache.engine.processes import ProcessError
from talos_registry_cache.registry.s3_location import S3Location
from talos_registry_cache.registry.upstream import Remote

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


FRONT = "registry-team-docker.io"
REGISTRY = f"{FRONT}-registry"
REMOTE = "https://registry-1.docker.io"


def front(**state: Any) -> Container:
    made = container(
        {},
        **{labels.REGISTRY: REGISTRY, labels.MIRROR: "https://172.17.0.1:5000", labels.CA: "PEM"},
    )
    made.attrs["Image"] = "sha256:nginx"
    made.attrs["State"].update(state)
    return made


def behind(environment: Mapping[str, str] | None = None, **state: Any) -> Container:
    """The container of a registry behind a front."""
    made = container(
        {"REGISTRY_HTTP_NET": "unix", "REGISTRY_PROXY_REMOTEURL": REMOTE, **(environment or {})}
    )
    made.attrs["Name"] = f"/{REGISTRY}"
    made.attrs["HostConfig"]["PortBindings"] = None
    made.attrs["State"].update(state)
    return made


def only(*containers: Container) -> Cache:
    """The one cache of an engine with these containers."""
    engine: Any = SimpleNamespace(
        containers=SimpleNamespace(list=lambda **_: list(containers)), info=dict
    )
    (cache,) = stack.find(engine, "team").caches.values()
    return cache


def test_a_cache_with_a_front_is_read_from_both_containers() -> None:
    cache = only(behind(), front())

    assert (cache.name, cache.process, cache.has_front) == (FRONT, REGISTRY, True)
    assert cache.processes == (REGISTRY, FRONT)
    assert (cache.endpoint, cache.mirror, cache.ca) == (
        "https://127.0.0.1:5000", "https://172.17.0.1:5000", "PEM",
    )  # fmt: skip
    assert (cache.storage, cache.image, cache.remote) == ("data", "sha256:1", Remote(REMOTE))
    assert (cache.is_running, cache.health) == (True, "healthy")


def test_clients_need_the_ca_and_the_password_of_a_closed_cache() -> None:
    engine: Any = None
    team = Stack("team", {"docker.io": only(behind(), front())}, engine)

    assert team.endpoints() == {"docker.io": Endpoint("https://127.0.0.1:5000", "PEM")}
    assert team.endpoints(("adam", "s3cret")) == {
        "docker.io": Endpoint("https://127.0.0.1:5000", "PEM", "adam", "s3cret")
    }


def test_the_object_store_is_read_from_the_registry_behind_the_front() -> None:
    stored = behind(LOCATION.environment("/credentials/s3-keys"))

    assert only(front(), stored).storage == LOCATION


PROBES = [{"Output": text} for text in ("an older one", "cannot write to\n/var/lib/registry\n")]
REASON = "cannot write to /var/lib/registry"
HEALTHY: dict[str, Any] = {"Health": {"Status": "healthy", "Log": PROBES}}
UNHEALTHY: dict[str, Any] = {"Health": {"Status": "unhealthy", "Log": PROBES}}


@pytest.mark.parametrize(
    ("containers", "health", "reason", "runs"),
    [
        ([front(**HEALTHY), behind(None, **HEALTHY)], "healthy", "", True),
        ([front(**UNHEALTHY), behind()], "unhealthy", REASON, True),
        ([front(), behind(None, **UNHEALTHY)], "unhealthy", REASON, True),
        ([front(Status="exited"), behind()], "exited", "", False),
        ([front(), behind(Status="exited")], "exited", "", False),
        ([front()], "no registry", f"there is no container {REGISTRY}", False),
        ([behind()], "no front", "the container of its front is gone", True),
    ],
)
def test_a_cache_is_as_healthy_as_the_worse_of_its_two_containers(
    *, containers: list[Container], health: str, reason: str, runs: bool
) -> None:
    cache = only(*containers)

    assert (cache.health, cache.why_unhealthy, cache.is_running) == (health, reason, runs)


@pytest.mark.parametrize(("of_front", "of_registry"), [(2, 1), (0, 3), (3, 0)])
def test_restarts_of_both_containers_count(of_front: int, of_registry: int) -> None:
    one, other = front(), behind()
    one.attrs["RestartCount"], other.attrs["RestartCount"] = of_front, of_registry

    cache = only(one, other)

    assert cache.restarts == 3
    assert cache.trouble is not None
    assert f"docker logs {REGISTRY}, docker logs {FRONT}" in cache.trouble


@pytest.mark.parametrize("killed", [front(OOMKilled=True), behind(OOMKilled=True)])
def test_either_container_can_run_out_of_memory(killed: Container) -> None:
    assert only(
        *(killed if killed.name == one.name else one for one in (front(), behind()))
    ).was_out_of_memory


def test_a_lost_registry_is_named_by_whatever_needs_its_storage() -> None:
    engine: Any = None

    with pytest.raises(ProcessError, match=f"there is no container {REGISTRY}"):
        caches.storage_of(engine, only(front()))


def test_a_task_of_a_service_is_no_cache() -> None:
    assert stack._without_front(container()) is None
