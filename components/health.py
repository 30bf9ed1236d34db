"""Warnings about unhealthy containers while `up` waits for them."""

import asyncio

import pulumi
from docker.errors import DockerException, NotFound

from talos_registry_cache.engine import processes

from . import engine

POLL_S = 2
_watches: set[asyncio.Task[None]] = set()


async def before_container(arguments: pulumi.ResourceHookArgs) -> None:
    """Watch a container that is about to be created; the provider only reports a timeout."""
    engine.is_prepared(arguments.name)
    name = (arguments.new_inputs or {})["name"]
    watch = asyncio.create_task(_tell_why_unhealthy(name))
    # The event loop has only weak references to tasks.
    _watches.add(watch)
    watch.add_done_callback(_watches.discard)


async def _tell_why_unhealthy(name: str) -> None:
    """Wait until a container is healthy, or warn why it is not; ends with the program."""
    while True:
        await asyncio.sleep(POLL_S)
        try:
            is_healthy, why = await engine.in_thread(_look, name)
        except DockerException as error:
            pulumi.log.debug(f"cannot inspect {name}: {error}")
            return
        if why:
            pulumi.log.warn(f"{name} is unhealthy: {why}; see: docker logs {name}")
        if is_healthy or why:
            return


def _look(name: str) -> tuple[bool, str]:
    try:
        container = engine.client().containers.get(name)
    except NotFound:
        return False, ""
    return processes.health(container) == "healthy", processes.why_unhealthy(container)
