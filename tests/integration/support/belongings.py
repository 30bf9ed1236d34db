"""The resources of a stack on the engine, found by label."""

from dataclasses import dataclass
from typing import Any

from docker import DockerClient
from docker.errors import APIError, NotFound
from docker.models.containers import Container

STACK_LABEL = "talos-registry-cache.stack"
UPSTREAM_LABEL = "talos-registry-cache.upstream"
REGISTRY_LABEL = "talos-registry-cache.registry"


@dataclass(frozen=True, slots=True)
class Belongings:
    """Names of the resources of a stack."""

    containers: frozenset[str]
    networks: frozenset[str]
    volumes: frozenset[str]


NOTHING = Belongings(frozenset(), frozenset(), frozenset())


def expected(prefix: str, *registries: str) -> Belongings:
    """The resources of a stack whose caches have these registry hosts and no credentials."""
    shared = [f"{prefix}-anonymous", f"{prefix}-fronts"]
    caches = [f"{prefix}-{host}" for host in registries]
    return Belongings(
        frozenset([*shared, *caches, *map("{}-registry".format, caches)]),
        frozenset([prefix]),
        frozenset([*shared, *caches, *map("{}-front".format, caches)]),
    )


def of_stack(engine: DockerClient, stack: str) -> Belongings:
    """All resources of a stack on an engine."""
    filters = {"label": f"{STACK_LABEL}={stack}"}
    return Belongings(
        frozenset(str(container.name) for container in containers(engine, stack)),
        frozenset(str(network.name) for network in engine.networks.list(filters=filters)),
        frozenset(str(volume.name) for volume in engine.volumes.list(filters=filters)),
    )


def containers(engine: DockerClient, stack: str) -> list[Container]:
    """The containers of a stack, running or not."""
    return engine.containers.list(
        all=True, filters={"label": f"{STACK_LABEL}={stack}"}, ignore_removed=True
    )


def caches(engine: DockerClient, stack: str) -> dict[str, Container]:
    """The running caches of a stack, by registry host: the fronts, which clients reach."""
    return {
        container.labels[UPSTREAM_LABEL]: container
        for container in containers(engine, stack)
        if container.status == "running" and REGISTRY_LABEL in container.labels
    }


def registries(engine: DockerClient, stack: str) -> dict[str, Container]:
    """The registries behind the running caches of a stack, by registry host."""
    return {
        host: engine.containers.get(front.labels[REGISTRY_LABEL])
        for host, front in caches(engine, stack).items()
    }


def health(container: Container) -> str:
    """The current health of a container."""
    container.reload()
    return str(container.attrs["State"].get("Health", {}).get("Status", "none"))


def check_health_now(container: Container) -> None:
    """End the pause of 25 s in the health check of a healthy cache, if there is one now."""
    container.exec_run(["busybox", "killall", "sleep"])


def port(container: Container) -> int:
    """The published port of a cache."""
    (number,) = {int(bound["HostPort"]) for bound in container.ports["5000/tcp"] or []}
    return number


def mounts(container: Container, kind: str = "volume") -> list[dict[str, Any]]:
    """The mounts of a container, of one type."""
    return [mount for mount in container.attrs["Mounts"] if mount["Type"] == kind]


def remove(engine: DockerClient, stack: str) -> None:
    """Remove all resources of a stack, in any state."""
    for container in containers(engine, stack):
        _gone(lambda container=container: container.remove(force=True, v=True))
    filters = {"label": f"{STACK_LABEL}={stack}"}
    for network in engine.networks.list(filters=filters):
        _gone(network.remove)
    for volume in engine.volumes.list(filters=filters):
        _gone(lambda volume=volume: volume.remove(force=True))


def _gone(removal: Any) -> None:
    try:
        removal()
    except NotFound:
        return
    except APIError as error:
        if error.status_code != 409:  # removal already in progress
            raise
