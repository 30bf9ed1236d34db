"""Hooks of containers and their network: they make way, hand over the storage, and watch."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pulumi
from docker.errors import APIError, DockerException, NotFound

from talos_registry_cache.engine import file_owner, ports, processes
from talos_registry_cache.engine.volume import STORAGE_FOLDER

from . import engine
from .dynamic_provider import EngineError
from .engine import TakenError

NETWORK_WITHIN_S = 30
NETWORK_POLL_S = 0.05
OTHERS_WITHIN_S = 30
OTHERS_BEGIN_WITHIN_S = 0.5
HEALTH_POLL_S = 2

# Declared containers that neither exist yet nor have failed, by resource name.
_expected: set[str] = set()
_watches: set[asyncio.Task[None]] = set()


async def make_way(arguments: pulumi.ResourceHookArgs) -> None:
    """Remove this stack's leftover container of the same name, and check that its ports are free.

    Pulumi creates only what its state lacks. A container of this stack that exists anyway was left
    by a run that was killed before it could save its state.

    Raises:
        TakenError: the name or a port is in use by something else.
    """
    inputs = arguments.new_inputs or {}
    try:
        await engine.in_thread(_remove_leftover_container, inputs)
        for port in inputs.get("ports") or []:
            _check_port(port["ip"], int(port["external"]), arguments.name)
    except TakenError:
        _expected.discard(arguments.name)
        await _others_exist()
        raise


def expect(name: str, container: pulumi.CustomResource) -> None:
    """Let other containers that fail wait until this one exists.

    Args:
        name: name of the resource.
        container: the container.
    """
    if not pulumi.runtime.is_dry_run():
        _expected.add(name)
        container.id.apply(lambda _: _expected.discard(name))


async def _others_exist() -> None:
    """Wait until the other containers exist or have failed.

    Pulumi creates nothing more, and ends the program with all hooks, as soon as one resource fails.
    One cache that fails must not keep the others from being created.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(OTHERS_WITHIN_S):
            await asyncio.sleep(OTHERS_BEGIN_WITHIN_S)
            while _expected:  # noqa: ASYNC110
                await asyncio.sleep(NETWORK_POLL_S)


async def hand_over_storage(arguments: pulumi.ResourceHookArgs) -> None:
    """Give the storage of a cache to the user that the cache runs as.

    If that fails, the cache is created all the same: some file systems, such as network ones, let
    every user write. The health check reports if the cache cannot write.
    """
    inputs = arguments.new_inputs or {}
    for volume in _storages(inputs):
        try:
            await engine.in_thread(_hand_over, volume, inputs["image"])
        except file_owner.OwnershipError as error:
            pulumi.log.warn(f"{arguments.name}: {error}")


async def watch_health(arguments: pulumi.ResourceHookArgs) -> None:
    """Watch a container that is about to be created; the provider only reports a timeout."""
    name = (arguments.new_inputs or {})["name"]
    watch = asyncio.create_task(_tell_why_unhealthy(name))
    # The event loop has only weak references to tasks.
    _watches.add(watch)
    watch.add_done_callback(_watches.discard)


class NetworkHooks:
    """Hooks of the caches' network and of the containers on it.

    Containers are created in parallel with their network: the provider takes 2 seconds to report a
    network that the engine creates in a fraction of one.

    A network that exists but is not in the state is removed first. Containers on it are connected
    to the new one.
    """

    def __init__(self, name: str) -> None:
        """Prepare the hooks of the network with this name."""
        self._name = name
        self._is_noted = False
        self._is_refused = False
        self._settled = asyncio.Event()
        self._detached: list[str] = []

    def watch(self, network: pulumi.CustomResource) -> None:
        """Stop waiting for the network as soon as the state holds it."""
        network.id.apply(self._note)

    async def before_network(self, arguments: pulumi.ResourceHookArgs) -> None:
        """Remove a leftover network of the same name.

        Raises:
            TakenError: the name belongs to another stack, or the network is in use.
        """
        try:
            await engine.in_thread(self._make_way, arguments.new_inputs or {})
        except Exception:
            self._is_refused = True
            raise
        finally:
            self._settled.set()

    async def after_network(self, arguments: pulumi.ResourceHookArgs) -> None:
        """Connect the containers of the removed network to the new one."""
        await engine.in_thread(self._attach, arguments.id)

    async def before_container(self, arguments: pulumi.ResourceHookArgs) -> None:
        """Wait for the container's network.

        Raises:
            EngineError: the network was not created.
        """
        try:
            await self._appears()
        except EngineError:
            _expected.discard(arguments.name)
            raise

    async def _appears(self) -> None:
        try:
            async with asyncio.timeout(NETWORK_WITHIN_S):
                await self._settled.wait()
                while not self._is_noted and not self._is_refused:
                    if await engine.in_thread(_networks, self._name):
                        return
                    await asyncio.sleep(NETWORK_POLL_S)
        except TimeoutError:
            raise EngineError(
                f"the network {self._name} was not created within {NETWORK_WITHIN_S} s"
            ) from None
        if self._is_refused:
            raise EngineError(f"the network {self._name} was not created")

    def _note(self, _: str) -> None:
        self._is_noted = True
        self._settled.set()

    def _make_way(self, inputs: Mapping[str, Any]) -> None:
        for network in _networks(self._name):
            engine.check_owner("network", inputs, network.attrs["Labels"])
            network.reload()
            # An overlay network lists containers of other nodes, too.
            is_local = network.attrs["Driver"] == "bridge"
            for container in network.attrs["Containers"] or () if is_local else ():
                # The container may be gone. If it is not, removing the network fails.
                with suppress(APIError):
                    network.disconnect(container, force=True)
                    self._detached.append(container)
            try:
                network.remove()
            except APIError as error:
                raise TakenError(
                    f"the network {self._name} is in use and cannot be replaced: "
                    f"{error.explanation}"
                ) from error

    def _attach(self, ident: str) -> None:
        for container in self._detached:
            # The container may be gone. If it is not, the next `up` finds it off the network.
            with suppress(APIError):
                engine.client().networks.get(ident).connect(container)


def _remove_leftover_container(inputs: Mapping[str, Any]) -> None:
    exactly = f"^/{re.escape(inputs['name'])}$"
    for container in engine.client().containers.list(all=True, filters={"name": exactly}):
        engine.check_owner("container", inputs, container.labels)
        container.remove(force=True, v=True)


def _networks(name: str) -> Sequence[Any]:
    return engine.client().networks.list(names=[f"^{re.escape(name)}$"])


def _check_port(address: str, port: int, resource: str) -> None:
    if ports.is_own_address(address) and not ports.can_bind(address, port):
        user = ports.user_of(port, engine.client())
        raise TakenError(
            f"{resource}: port {port} on {address} is taken by {user}; "
            "free it, or set another port in caches.upstreams, caches.wildcard or caches.local"
        )


def _storages(inputs: Mapping[str, Any]) -> Iterator[str]:
    """The volume of the cache's storage, in the inputs of its registry's container."""
    for volume in inputs.get("volumes") or []:
        if volume["containerPath"] == STORAGE_FOLDER:
            yield volume["volumeName"]


def _hand_over(volume: str, image: str) -> None:
    # Pulumi shows what is printed; its log cannot be used in this thread.
    file_owner.hand_over(engine.client(), volume, image, lambda line: print(line, flush=True))  # noqa: T201


async def _tell_why_unhealthy(name: str) -> None:
    """Wait until a container is healthy, or warn why it is not; ends with the program.

    A front is unhealthy while its registry starts, so only what is seen twice is reported.
    """
    was_unhealthy = False
    while True:
        await asyncio.sleep(HEALTH_POLL_S)
        try:
            is_healthy, why = await engine.in_thread(_look, name)
        except DockerException as error:
            pulumi.log.debug(f"cannot inspect {name}: {error}")
            return
        if why and was_unhealthy:
            pulumi.log.warn(f"{name} is unhealthy: {why}; see: docker logs {name}")
            return
        if is_healthy:
            return
        was_unhealthy = bool(why)


def _look(name: str) -> tuple[bool, str]:
    try:
        container = engine.client().containers.get(name)
    except NotFound:
        return False, ""
    return processes.health(container) == "healthy", processes.why_unhealthy(container)
