"""The container engine: a client, and its state before the program declares anything."""

import asyncio
import secrets
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Network
from typing import Any, TypeVar

import pulumi
from docker import DockerClient
from docker.errors import DockerException

from talos_registry_cache.engine import labels, ports, registry_image, supported
from talos_registry_cache.errors import ReportedError

from . import dynamic_provider
from .dynamic_provider import EngineError

T = TypeVar("T")

ENGINE_IN_VM = "host.docker.internal"


class TakenError(ReportedError):
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
        is_on_this_machine: whether the engine certainly runs on this machine itself, and not in a
            virtual machine.
        bridge_gateway: the address of the default bridge; empty if there is no such bridge.
        is_rootless: whether the engine runs without root.
    """

    mirror_host: str
    published: Mapping[str, Sequence[str]]
    networks: Mapping[str, EngineNetwork] = field(default_factory=dict)
    stack: str = ""
    containers: Mapping[str, EngineContainer] = field(default_factory=dict)
    volumes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    generation: str = ""
    is_on_this_machine: bool = False
    bridge_gateway: str = ""
    is_rootless: bool = False


@cache
def discover(stack: str) -> EngineFacts:
    """Ask the engine for its state, once in each process.

    Raises:
        EngineError: the engine does not answer, or is not supported.
    """
    try:
        api = client().api
        if problem := supported.why_not(api.version()):
            raise EngineError(problem)
        info = api.info()
        networks = {network["Name"]: network for network in api.networks()}
        containers = api.containers(all=True, filters={"label": f"{labels.STACK}={stack}"})
        # A container that is being removed may have no name.
        containers = [container for container in containers if container["Names"]]
        volumes = api.volumes()["Volumes"] or []
    except DockerException as error:
        raise EngineError(f"the container engine does not answer: {error}") from error
    gateway = _gateway(_ipv4(networks["bridge"]) if "bridge" in networks else [])
    return EngineFacts(
        mirror_host=gateway if gateway and ports.is_own_address(gateway) else ENGINE_IN_VM,
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
        is_on_this_machine=info.get("Name") == socket.gethostname(),
        bridge_gateway=gateway,
        is_rootless=supported.is_rootless(info),
    )


@cache
def image_to_run(reference: str) -> str:
    """The image to run for one that settings name: itself, or the one built on this machine.

    The engine is asked once for each image, however many caches run it.

    Raises:
        EngineError: the engine does not answer.
    """
    try:
        return registry_image.on_engine(client(), reference)
    except DockerException as error:
        raise EngineError(f"the container engine does not answer: {error}") from error


@cache
def client() -> DockerClient:
    """The engine that pulumi-docker uses.

    Raises:
        EngineError: it does not answer, or is on another machine.
    """
    return dynamic_provider.connect(pulumi.Config("docker").get("host"))


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


def _gateway(bridge: Sequence[Mapping[str, str]]) -> str:
    for config in bridge:
        # Engine 20.10 does not report the gateway: it is the first address of the subnet.
        return config.get("Gateway") or str(next(IPv4Network(config["Subnet"]).hosts()))
    return ""


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Call the engine without blocking the event loop.

    The threads are separate from the event loop's, which may all be busy with resources that wait
    for this very call.
    """
    return await asyncio.get_running_loop().run_in_executor(_threads(), call, *arguments)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="engine")


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
