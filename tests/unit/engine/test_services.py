"""Caches that are Swarm services."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from talos_registry_cache.cli import node_metrics, stack
from talos_registry_cache.engine import labels, services
from talos_registry_cache.registry.s3_location import S3Location

LOCATION = S3Location("caches", "team/docker.io", endpoint="http://store:9000")
MIRROR = "https://caches.team:5000"
NETWORK = {"Spec": {"Name": "registry-team"}}
FRONT, REGISTRY = "registry-team-docker-io", "registry-team-docker-io-registry"
INGRESS = {"Spec": {"Name": "ingress", "Ingress": True}}


class Engine:
    """A manager of two nodes with one service, whose tasks have these states."""

    def __init__(self, *states: str, environment: dict[str, str], **more: str) -> None:
        self.states = states
        self.there = [
            spec("registry-team-docker-io", environment, more, publishes=True),
        ]

    @property
    def api(self) -> "Engine":
        return self

    @property
    def containers(self) -> Any:
        return SimpleNamespace(list=lambda **_: [])

    def info(self) -> dict[str, Any]:
        return {"Swarm": {"ControlAvailable": True}}

    def nodes(self) -> list[Any]:
        return [
            {"ID": "n0", "Status": {"Addr": "0.0.0.0"}, "ManagerStatus": {"Addr": "10.0.0.1:2377"}},
            {"ID": "n1", "Status": {"Addr": "10.0.0.2"}},
        ]

    def services(self, **_: Any) -> list[Any]:
        running = self.states.count("running")
        status = {"DesiredTasks": len(self.states), "RunningTasks": running}
        return [{"ID": one["Name"], "Spec": one, "ServiceStatus": status} for one in self.there]

    def tasks(self, **_: Any) -> list[Any]:
        return [
            {
                "NodeID": f"n{number}",
                "Status": {"State": state},
                "NetworksAttachments": [
                    {"Network": INGRESS, "Addresses": [f"10.255.0.{number}/16"]},
                    {"Network": NETWORK, "Addresses": [f"10.0.9.{number}/24"]},
                ],
            }
            for number, state in enumerate(self.states)
        ]


class WithFront(Engine):
    """A manager of two nodes with a front and its registry, or with one of them."""

    def __init__(self, *parts: str) -> None:
        super().__init__("running", "running", environment={})
        location = LOCATION.environment("/credentials/s3-keys")
        there = {
            "front": spec(FRONT, {}, {labels.MIRROR: MIRROR, labels.REGISTRY: REGISTRY}),
            "registry": spec(REGISTRY, {**location, "REGISTRY_HTTP_NET": "unix"}, {}),
        }
        self.there = [there[part] for part in parts]


def spec(
    name: str, environment: Mapping[str, str], more: Mapping[str, str], *, publishes: bool = False
) -> dict[str, Any]:
    """The specification of a service of a stack for docker.io."""
    ports = [{"PublishedPort": 5000, "TargetPort": 5000}] if publishes else []
    return {
        "Name": name,
        "Labels": {**labels.of_upstream("team", "docker.io"), **more},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "registry:3.1.2",
                "Env": [f"{name}={value}" for name, value in environment.items()],
                "Mounts": [{"Type": "volume", "Source": "data", "Target": "/var/lib/registry"}],
            }
        },
        "EndpointSpec": {"Ports": ports},
    }


def found(engine: Any) -> stack.Cache:
    return stack.find(engine, "team").caches["docker.io"]


def test_a_service_is_reached_at_the_name_that_its_nodes_share() -> None:
    cache = found(
        Engine("running", "running", environment={}, **{labels.MIRROR: MIRROR, labels.CA: "PEM"})
    )

    assert (cache.name, cache.is_service, cache.health) == (
        "registry-team-docker-io", True, "healthy",
    )  # fmt: skip
    assert (cache.endpoint, cache.mirror, cache.ca) == (MIRROR, MIRROR, "PEM")
    assert (cache.storage, cache.image) == ("data", "registry:3.1.2")


@pytest.mark.parametrize(
    ("states", "endpoint", "health"),
    [
        (("running", "running"), "http://10.0.0.1:5000", "healthy"),
        (("starting", "running"), "http://10.0.0.2:5000", "1 of 2 nodes"),
    ],
)
def test_a_service_without_a_name_is_reached_at_a_node_that_runs_it(
    states: tuple[str, ...], endpoint: str, health: str
) -> None:
    environment = dict(LOCATION.environment("/credentials/s3-keys"))
    cache = found(Engine(*states, environment=environment))

    assert (cache.endpoint, cache.is_running, cache.health) == (endpoint, True, health)
    assert cache.storage == LOCATION


def test_a_front_and_its_registry_are_one_cache() -> None:
    cache = found(WithFront("front", "registry"))

    assert (cache.name, cache.process, cache.has_front) == (FRONT, REGISTRY, True)
    assert (cache.endpoint, cache.storage, cache.health) == (MIRROR, LOCATION, "healthy")


@pytest.mark.parametrize(("left", "health"), [("front", "no registry"), ("registry", "no front")])
def test_a_service_that_has_lost_the_other_one_is_not_healthy(left: str, health: str) -> None:
    cache = found(WithFront(left))

    assert cache.health == health
    assert cache.why_unhealthy


def test_metrics_are_read_from_each_node_on_the_stacks_network() -> None:
    engine: Any = Engine("running", "running", environment={})

    assert node_metrics._networks_by_address(services.tasks(engine, "s")) == {
        "10.0.9.0": "registry-team",
        "10.0.9.1": "registry-team",
    }
