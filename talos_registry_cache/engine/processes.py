"""The process of a cache: a container, or a Swarm service.

A registry remembers its blobs in memory (distribution's descriptor cache), so it has to be
restarted after blobs were removed from its storage.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from docker import DockerClient
from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from docker.models.services import Service

from talos_registry_cache.engine import labels
from talos_registry_cache.registry.errors import RegistryError

HEALTHY = frozenset({"healthy", "running"})
STOPPED = frozenset({"created", "exited", "dead"})
HEALTHY_TIMEOUT_S = 60.0
# Node after node drains for up to a minute and restarts.
ROLL_TIMEOUT_S = 600.0
POLL_S = 0.1
FAILED = frozenset({"paused", "rollback_started", "rollback_completed", "rollback_paused"})


class ProcessError(RegistryError):
    """The process of a cache is missing, or does not restart."""


def find(engine: DockerClient, name: str) -> Container | Service:
    """Find the container or Swarm service of a cache by its name; its registry if it has a front.

    Raises:
        ProcessError: there is none.
    """
    try:
        container = engine.containers.get(name)
        behind = container.labels.get(labels.REGISTRY)
        return engine.containers.get(behind) if behind else container
    except NotFound:
        found: Service | None = service(engine, name) if manages_swarm(engine) else None
        if found is None:
            raise ProcessError(f"there is no container and no service {name}") from None
        return found


def container(engine: DockerClient, name: str) -> Container:
    """Find a container by its name.

    Raises:
        ProcessError: there is none.
    """
    try:
        return engine.containers.get(name)
    except NotFound:
        raise ProcessError(f"there is no container {name}") from None


def service(engine: DockerClient, name: str) -> Service | None:
    """Find a Swarm service by its name; None if there is none."""
    # The filter also matches names that only begin like this.
    return next(
        (one for one in engine.services.list(filters={"name": name}) if one.name == name), None
    )


def manages_swarm(engine: DockerClient) -> bool:
    """Whether an engine is a Swarm manager."""
    return bool(engine.info().get("Swarm", {}).get("ControlAvailable"))


@contextmanager
def forgetting(engine: DockerClient, name: str) -> Iterator[None]:
    """Make a cache forget the blobs that are removed inside the block.

    A container is stopped for that time. A service keeps running, and its nodes restart afterwards,
    one after the other; until then, one pull of a removed blob may fail on each node.

    Raises:
        ProcessError: the cache does not run again.
    """
    process = find(engine, name)
    if isinstance(process, Container):
        with _stopped(process):
            yield
    else:
        yield
        _roll(engine, process)


def start_again(engine: DockerClient, name: str) -> bool:
    """Start a stopped cache and wait until it is healthy; returns whether it was stopped.

    A command that is killed while `forgetting` leaves its cache stopped.

    Args:
        engine: the engine.
        name: the name of the container; the caller holds the lock of its stack.

    Raises:
        ProcessError: it does not start, or does not become healthy.
    """
    try:
        container = engine.containers.get(name)
        if container.status != "exited":
            return False
        container.start()
    except NotFound:
        # Whatever needs the cache will report that it is missing.
        return False
    except DockerException as error:
        raise ProcessError(f"{name} is stopped and does not start: {error}") from error
    _wait(container)
    return True


def health(container: Container) -> str:
    """The health of a container, or its state if it does not run or has no health check."""
    state = container.attrs["State"]
    if state["Status"] != "running":
        return str(state["Status"])
    return str(state.get("Health", {}).get("Status", "running"))


def why_unhealthy(container: Container) -> str:
    """The last output of an unhealthy container's health check; empty if it is not unhealthy."""
    health = container.attrs["State"].get("Health") or {}
    if health.get("Status") != "unhealthy" or not health.get("Log"):
        return ""
    return " ".join(str(health["Log"][-1]["Output"]).split())


@contextmanager
def _stopped(container: Container) -> Iterator[None]:
    if container.status in STOPPED:
        yield
        return
    try:
        container.stop()
        yield
    finally:
        # This also cuts short a stop that was interrupted here and that the engine continues.
        container.restart(timeout=0)
    _wait(container)


def _wait(container: Container) -> None:
    container.reload()
    deadline = time.monotonic() + HEALTHY_TIMEOUT_S
    while health(container) not in HEALTHY:
        if time.monotonic() > deadline:
            raise ProcessError(
                f"{container.name} was restarted and is {health(container)} "
                f"after {HEALTHY_TIMEOUT_S:.0f} s; see: docker logs {container.name}"
            )
        time.sleep(POLL_S)
        container.reload()


def _roll(engine: DockerClient, one: Service) -> None:
    api: Any = engine.api
    one.reload()
    forced = one.attrs["Spec"]["TaskTemplate"].get("ForceUpdate", 0) + 1
    api.update_service(
        one.id, one.version, task_template={"ForceUpdate": forced}, fetch_current_spec=True
    )
    deadline = time.monotonic() + ROLL_TIMEOUT_S
    while not _has_rolled(engine, one, forced):
        if time.monotonic() > deadline:
            raise ProcessError(
                f"the nodes of {one.name} did not restart within {ROLL_TIMEOUT_S:.0f} s; "
                f"see: docker service ps {one.name}"
            )
        time.sleep(POLL_S)


def _has_rolled(engine: DockerClient, one: Service, forced: int) -> bool:
    one.reload()
    update = one.attrs.get("UpdateStatus") or {}
    if update.get("State") in FAILED:
        raise ProcessError(
            f"a node of {one.name} did not restart: {update.get('Message')}; "
            f"see: docker service ps {one.name}"
        )
    api: Any = engine.api
    tasks = api.tasks(filters={"service": one.id, "desired-state": "running"})
    return update.get("State") != "updating" and all(
        task["Spec"].get("ForceUpdate", 0) == forced and task["Status"]["State"] == "running"
        for task in tasks
    )
