"""Docker Swarm services: hooks, and waiting until all nodes run the current version."""

import asyncio
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from talos_registry_cache.engine import processes

from . import engine

POLL_S = 0.5
# A node's cache drains for up to a minute before the next one starts.
STUCK_AFTER_S = 90
TOLD_AFTER_S = 2
PULLING = "a node gets the image"
ENDING = {"updating": "its last node is watched", "rollback_started": "it is taken back"}
FAILED = {
    "paused": "the new one on some nodes",
    "rollback_completed": "as before",
    "rollback_paused": "not yet as before on all nodes",
}


# Names of the services that this `up` updates.
_updated: set[str] = set()


class SwarmError(pulumi.RunError):
    """A service does not run as declared."""


async def before_service(arguments: pulumi.ResourceHookArgs) -> None:
    """Remove this stack's leftover service of the same name.

    Raises:
        TakenError: the name belongs to another stack.
        SwarmError: the engine is not a Swarm manager.
    """
    inputs = arguments.new_inputs or {}
    await engine.in_thread(_remove_leftover, inputs)


async def before_update(arguments: pulumi.ResourceHookArgs) -> None:
    """Note that this `up` updates a service."""
    _updated.add((arguments.new_inputs or {})["name"])


async def converged(service: Sequence[str]) -> str:
    """Wait until every node that is to run a service runs its current version.

    Args:
        service: ID and name of the service.

    Returns:
        The name of the service.

    Raises:
        SwarmError: the service does not converge; the message has the errors of its tasks.
    """
    ident, name = service
    if pulumi.runtime.is_dry_run():
        return name
    started = changed = time.monotonic()
    last = ""
    look = functools.partial(_missing, ident, is_updated=name in _updated)
    while (missing := await engine.in_thread(look)) is not None:
        now = time.monotonic()
        if missing != last:
            last, changed = missing, now
            if now - started > TOLD_AFTER_S:
                pulumi.log.info(f"{name}: {missing}")
        # Pulling the image may take long on a slow link.
        if now - changed > STUCK_AFTER_S and PULLING not in missing:
            raise SwarmError(
                f"the service {name} is not up, and nothing has changed for {STUCK_AFTER_S} s: "
                f"{missing}; see: docker service ps --no-trunc {name}"
            )
        await asyncio.sleep(POLL_S)
    return name


def _remove_leftover(inputs: Mapping[str, Any]) -> None:
    client = engine.client()
    if not processes.manages_swarm(client):
        raise SwarmError(
            "caches.placement is a Swarm, and this engine manages none; "
            "make one (docker swarm init), or let DOCKER_HOST name a manager"
        )
    if service := processes.service(client, inputs["name"]):
        engine.check_owner("service", inputs, service.attrs["Spec"]["Labels"])
        _api().remove_service(service.id)


def _missing(ident: str, *, is_updated: bool) -> str | None:
    """Why a service does not run as declared yet; None if it does.

    Args:
        ident: its ID.
        is_updated: whether this `up` updates it. If not, it may have failed to be updated earlier,
            and is declared as before since then.

    Raises:
        SwarmError: the service will not converge.
    """
    api = _api()
    found = api.services(filters={"id": ident}, status=True)
    if not found:
        raise SwarmError("a service is gone that was just declared; see `up --refresh`")
    service, tasks = found[0], api.tasks(filters={"service": ident})
    update = service.get("UpdateStatus") or {}
    state = update.get("State", "completed")
    if state in FAILED and not is_updated:
        state = "completed"
    if state in FAILED:
        said = "; ".join(sorted(_said(tasks))) or update.get("Message", "")
        name = service["Spec"]["Name"]
        raise SwarmError(
            f"the service {name} was not updated and is {FAILED[state]}: {said}; "
            "see: docker service ps --no-trunc, and then `up --refresh`"
        )
    template = service["Spec"]["TaskTemplate"].items()
    current = [task for task in tasks if task["Spec"].items() <= template]
    running = [
        task
        for task in current
        if task["DesiredState"] == "running" and task["Status"]["State"] == "running"
    ]
    status = service["ServiceStatus"]
    if status["DesiredTasks"] == len(running) == status["RunningTasks"] != 0:
        return None if state == "completed" else ENDING.get(state, state)
    if status["DesiredTasks"] == 0:
        return "no node may run it; see caches.placement.nodeLabels"
    states = {task["Status"]["State"] for task in current}
    said = "; ".join([*sorted(_said(current)), *([PULLING] if "preparing" in states else [])])
    return f"{len(running)} of {status['DesiredTasks']} nodes run it{said and f' ({said})'}"


def _said(tasks: Sequence[Mapping[str, Any]]) -> set[str]:
    """The errors of tasks that could not run."""
    return {error for task in tasks if (error := task["Status"].get("Err"))}


def _api() -> Any:
    """The engine's API, untyped: its Swarm methods have no types."""
    return engine.client().api
