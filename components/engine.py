"""The container engine beside the resources on it: what is there, and hooks that make way."""

import asyncio
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Network
from typing import Any, TypeVar

import pulumi
from docker import DockerClient
from docker.errors import APIError, DockerException

from talos_registry_cache.engine import labels, ports, registry_image

from . import dynamic_provider
from .dynamic_provider import EngineError

T = TypeVar("T")

ENGINE_IN_VM = "host.docker.internal"
NETWORK_WITHIN_S = 30
NETWORK_POLL_S = 0.05
OTHERS_WITHIN_S = 15
OTHERS_BEGIN_WITHIN_S = 0.5
LOCAL_URLS = ("http+docker://localhost", "http+docker://localnpipe")

# Containers between their first hook and their creation, by resource name.
_in_preparation: set[str] = set()


class TakenError(Exception):
    """A name or port that a resource needs is in use."""


@dataclass(frozen=True, slots=True)
class EngineNetwork:
    """A network on the engine.

    Attributes:
        id: its ID.
        subnets: its IPv4 subnets.
        labels: its labels.
    """

    id: str
    subnets: Sequence[str]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineContainer:
    """A container of the stack.

    Attributes:
        state: its state as the engine reports it, such as `running`.
        labels: its labels.
        networks: the IDs of its networks.
        volumes: the names of the volumes it mounts.
    """

    state: str
    labels: Mapping[str, str]
    networks: Collection[str]
    volumes: Collection[str]


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The engine's state before the program declares anything.

    Attributes:
        mirror_host: the address at which containers reach this machine: the default bridge's
            gateway, or `host.docker.internal` where the engine runs in a virtual machine.
        published: the addresses on which each running container of the stack is published, in
            the engine's order, by container name.
        networks: all networks, by name.
        stack: the stack's name.
        containers: the stack's containers, running or not, by name.
        volumes: the labels of all volumes, by name.
        generation: the label value of resources made by this run; empty for a simulated run.
        is_local: whether the engine runs on this machine.
    """

    mirror_host: str
    published: Mapping[str, Sequence[str]]
    networks: Mapping[str, EngineNetwork] = field(default_factory=dict)
    stack: str = ""
    containers: Mapping[str, EngineContainer] = field(default_factory=dict)
    volumes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    generation: str = ""
    is_local: bool = True


@cache
def discover(stack: str) -> EngineFacts:
    """Ask the engine for its state, once in each process.

    Raises:
        EngineError: the engine does not answer.
    """
    try:
        api = client().api
        networks = {network["Name"]: network for network in api.networks()}
        containers = api.containers(all=True, filters={"label": f"{labels.STACK}={stack}"})
        # A container that is being removed may have no name.
        containers = [container for container in containers if container["Names"]]
        volumes = api.volumes()["Volumes"] or []
    except DockerException as error:
        raise EngineError(f"the container engine does not answer: {error}") from error
    return EngineFacts(
        mirror_host=_host_behind(_ipv4(networks["bridge"]) if "bridge" in networks else []),
        published={
            _name(container): [port["IP"] for port in container["Ports"] if "PublicPort" in port]
            for container in containers
        },
        networks={
            name: EngineNetwork(
                network["Id"],
                [config["Subnet"] for config in _ipv4(network)],
                network["Labels"] or {},
            )
            for name, network in networks.items()
        },
        stack=stack,
        containers={_name(container): _container(container) for container in containers},
        volumes={volume["Name"]: volume["Labels"] or {} for volume in volumes},
        # A pull request's preview compares resources and discards them.
        generation="" if dynamic_provider.is_simulated() else secrets.token_hex(4),
        is_local=api.base_url in LOCAL_URLS,
    )


def image_to_run(reference: str) -> str:
    """The image to run for one that settings name: itself, or the one built on this machine.

    Raises:
        EngineError: the engine does not answer.
    """
    try:
        return registry_image.on_engine(client(), reference)
    except DockerException as error:
        raise EngineError(f"the container engine does not answer: {error}") from error


@cache
def client() -> DockerClient:
    """The engine that pulumi-docker uses."""
    host = pulumi.Config("docker").get("host")
    return DockerClient(base_url=host) if host else DockerClient.from_env()


def _name(container: Mapping[str, Any]) -> str:
    return str(container["Names"][0].removeprefix("/"))


def _container(found: Mapping[str, Any]) -> EngineContainer:
    return EngineContainer(
        state=found["State"],
        labels=found["Labels"],
        networks=[one["NetworkID"] for one in found["NetworkSettings"]["Networks"].values()],
        volumes=[mount["Name"] for mount in found["Mounts"] if mount["Type"] == "volume"],
    )


def _ipv4(network: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    return [config for config in network["IPAM"]["Config"] or [] if ":" not in config["Subnet"]]


def _host_behind(bridge: Sequence[Mapping[str, str]]) -> str:
    for config in bridge:
        # Engine 20.10 does not report the gateway: it is the first address of the subnet.
        gateway = config.get("Gateway") or str(next(IPv4Network(config["Subnet"]).hosts()))
        return gateway if ports.is_own_address(gateway) else ENGINE_IN_VM
    return ENGINE_IN_VM


async def before_container(arguments: pulumi.ResourceHookArgs) -> None:
    """Remove this stack's leftover container of the same name, and check that its ports are free.

    Pulumi creates only what its state lacks. A container of this stack that exists anyway was left
    by a run that was killed before it could save its state.

    Raises:
        TakenError: the name or a port is in use by something else.
    """
    inputs = arguments.new_inputs or {}
    try:
        await in_thread(_remove_leftover_container, inputs)
        for port in inputs.get("ports") or []:
            _check_port(port["ip"], int(port["external"]), arguments.name)
    except TakenError:
        await _others_are_prepared()
        raise


def is_prepared(container: str) -> None:
    """Record that a container's last hook has run."""
    _in_preparation.discard(container)


async def _others_are_prepared() -> None:
    """Wait until the hooks of the other containers have run.

    Pulumi ends the program, and with it all hooks, as soon as one resource fails. One cache that
    fails must not keep the others from being created.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(OTHERS_WITHIN_S):
            await asyncio.sleep(OTHERS_BEGIN_WITHIN_S)
            while _in_preparation:  # noqa: ASYNC110
                await asyncio.sleep(NETWORK_POLL_S)


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
            await in_thread(self._make_way, arguments.new_inputs or {})
        except Exception:
            self._is_refused = True
            raise
        finally:
            self._settled.set()

    async def after_network(self, arguments: pulumi.ResourceHookArgs) -> None:
        """Connect the containers of the removed network to the new one."""
        await in_thread(self._attach, arguments.id)

    async def before_container(self, arguments: pulumi.ResourceHookArgs) -> None:
        """Wait for the container's network.

        Raises:
            EngineError: the network was not created.
        """
        _in_preparation.add(arguments.name)
        try:
            await self._appears()
        except EngineError:
            is_prepared(arguments.name)
            raise

    async def _appears(self) -> None:
        try:
            async with asyncio.timeout(NETWORK_WITHIN_S):
                await self._settled.wait()
                while not self._is_noted and not self._is_refused:
                    if await in_thread(_networks, self._name):
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
            check_owner("network", inputs, network.attrs["Labels"])
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
                client().networks.get(ident).connect(container)


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Call the engine without blocking the event loop.

    The threads are separate from the event loop's, which may all be busy with resources that wait
    for this very call.
    """
    return await asyncio.get_running_loop().run_in_executor(_threads(), call, *arguments)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="engine")


def _remove_leftover_container(inputs: Mapping[str, Any]) -> None:
    named = client().containers.list(all=True, filters={"name": f"^/{re.escape(inputs['name'])}$"})
    for container in named:
        check_owner("container", inputs, container.labels)
        container.remove(force=True, v=True)


def _networks(name: str) -> Sequence[Any]:
    return client().networks.list(names=[f"^{re.escape(name)}$"])


def check_owner(kind: str, inputs: Mapping[str, Any], found: Mapping[str, str] | None) -> None:
    """Check that an existing object with a resource's name belongs to the same stack.

    Args:
        kind: `container`, `network` or `service`.
        inputs: the resource's properties.
        found: the labels of the existing object.

    Raises:
        TakenError: it belongs to something else.
    """
    wanted = {label["label"]: label["value"] for label in inputs["labels"]}
    if (found or {}).get(labels.STACK) != wanted[labels.STACK]:
        raise TakenError(
            f"the {kind} name {inputs['name']} is taken by one that does not belong to this stack; "
            f"remove it (docker {kind} rm {inputs['name']}) or set caches.namePrefix"
        )


def _check_port(address: str, port: int, resource: str) -> None:
    if ports.is_own_address(address) and not ports.can_bind(address, port):
        raise TakenError(
            f"{resource}: port {port} on {address} is taken by {ports.user_of(port, client())}; "
            "free it, or set another one in caches.upstreams"
        )
