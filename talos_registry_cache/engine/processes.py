"""The process of a cache: a container of an engine, or a service of a Swarm.

It remembers the blobs that it had (distribution's cache of descriptors, in memory), so it has to be
started anew when some were removed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from docker import DockerClient
from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from docker.models.services import Service

from talos_registry_cache.registry.errors import RegistryError

HEALTHY = frozenset({"healthy", "running"})
STOPPED = frozenset({"created", "exited", "dead"})
HEALTHY_WITHIN_S = 60.0
# Each node in its turn drains for up to a minute and starts anew.
ROLLED_WITHIN_S = 600.0
POLL_S = 0.1
FAILED = frozenset({"paused", "rollback_started", "rollback_completed", "rollback_paused"})


class ProcessError(RegistryError):
    """The process of a cache does not start again."""


def find(engine: DockerClient, name: str) -> Container | Service:
    """The container or the service that has a name.

    Raises:
        ProcessError: there is none.
    """
    try:
        return engine.containers.get(name)
    except NotFound:
        found: Service | None = service(engine, name) if manages_swarm(engine) else None
        if found is None:
            raise ProcessError(f"there is no container and no service {name}") from None
        return found


def service(engine: DockerClient, name: str) -> Service | None:
    """The service that has a name, or None."""
    # The filter takes the beginning of a name too.
    return next(
        (one for one in engine.services.list(filters={"name": name}) if one.name == name), None
    )


def manages_swarm(engine: DockerClient) -> bool:
    """Whether an engine can tell of services."""
    return bool(engine.info().get("Swarm", {}).get("ControlAvailable"))


@contextmanager
def forgetting(engine: DockerClient, name: str) -> Iterator[None]:
    """Let a cache forget what is removed meanwhile.

    A container is stopped for as long as that takes. A service goes on, and its nodes start anew
    afterwards, one after the other, so that there is always one to ask; what is asked of the others
    until then, and was removed, may fail once.

    Raises:
        ProcessError: it does not run again.
    """
    process = find(engine, name)
    if isinstance(process, Container):
        with _stopped(process):
            yield
    else:
        yield
        _roll(engine, process)


def start_again(engine: DockerClient, name: str) -> bool:
    """Start a cache that was stopped, and wait until it is healthy; whether that was needed.

    A process that is killed while it is `forgetting` leaves its cache stopped.

    Args:
        engine: the engine.
        name: the container of the cache, which nobody else is working on.

    Raises:
        ProcessError: it does not run.
    """
    try:
        container = engine.containers.get(name)
        if container.status != "exited":
            return False
        container.start()
    except NotFound:
        # Who asks for it will find out.
        return False
    except DockerException as error:
        raise ProcessError(f"{name} is stopped, and does not start: {error}") from error
    _wait(container)
    return True


def health(container: Container) -> str:
    """What the health check of a container says, or its state where it does not run."""
    state = container.attrs["State"]
    if state["Status"] != "running":
        return str(state["Status"])
    return str(state.get("Health", {}).get("Status", "running"))


def why_unhealthy(container: Container) -> str:
    """What the health check of a container that is not healthy said last; else nothing."""
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
        # It also ends a stop that we were interrupted in, and that the engine goes on with.
        container.restart(timeout=0)
    _wait(container)


def _wait(container: Container) -> None:
    container.reload()
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    while health(container) not in HEALTHY:
        if time.monotonic() > deadline:
            raise ProcessError(
                f"{container.name} was started again and is {health(container)} "
                f"after {HEALTHY_WITHIN_S:.0f} s; see: docker logs {container.name}"
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
    deadline = time.monotonic() + ROLLED_WITHIN_S
    while not _has_rolled(engine, one, forced):
        if time.monotonic() > deadline:
            raise ProcessError(
                f"the nodes of {one.name} did not start anew within {ROLLED_WITHIN_S:.0f} s; "
                f"see: docker service ps {one.name}"
            )
        time.sleep(POLL_S)


def _has_rolled(engine: DockerClient, one: Service, forced: int) -> bool:
    one.reload()
    update = one.attrs.get("UpdateStatus") or {}
    if update.get("State") in FAILED:
        raise ProcessError(
            f"a node of {one.name} did not start anew: {update.get('Message')}; "
            f"see: docker service ps {one.name}"
        )
    api: Any = engine.api
    tasks = api.tasks(filters={"service": one.id, "desired-state": "running"})
    return update.get("State") != "updating" and all(
        task["Spec"].get("ForceUpdate", 0) == forced and task["Status"]["State"] == "running"
        for task in tasks
    )
