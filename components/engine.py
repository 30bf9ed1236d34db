"""What the components ask of the container engine itself, beside the resources they declare."""

import asyncio
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Network
from typing import Any, TypeVar

import pulumi
from docker import DockerClient
from docker.errors import DockerException

from components import labels, registry_image

T = TypeVar("T")

ENGINE_IN_VM = "host.docker.internal"
NETWORK_WITHIN_S = 30
NETWORK_POLL_S = 0.05


class EngineError(Exception):
    """The container engine does not answer."""


class TakenError(Exception):
    """A name or a port that a resource needs belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class EngineNetwork:
    """A network that the engine has.

    Attributes:
        id: its ID.
        stack: the stack whose caches it is made for, or None.
        subnets: its IPv4 subnets.
    """

    id: str
    stack: str | None
    subnets: Sequence[str]


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the program has to know of the engine before it declares anything.

    Attributes:
        mirror_host: the address of this machine as containers see it. The default bridge's gateway
            where the engine runs on this machine; where it runs in a virtual machine (macOS,
            Windows) that address is not one of ours, and the engine has a name for us.
        published: the addresses on which each running container of the stack is published, in
            the order in which the engine lists them, by container name.
        networks: the engine's networks, by name.
        images: the name of the image to run for each that the settings name.
    """

    mirror_host: str
    published: Mapping[str, Sequence[str]]
    networks: Mapping[str, EngineNetwork] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)


def discover(stack: str, references: Iterable[str] = ()) -> EngineFacts:
    """Ask the engine what the program has to know.

    Args:
        stack: the stack's name.
        references: the images that its settings name.

    Raises:
        EngineError: it does not answer.
    """
    try:
        api = client().api
        networks = {network["Name"]: network for network in api.networks()}
        containers = api.containers(filters={"label": f"{labels.STACK}={stack}"})
        to_run = {one: registry_image.on_engine(client(), one) for one in references}
    except DockerException as error:
        raise EngineError(f"the container engine does not answer: {error}") from error
    return EngineFacts(
        mirror_host=_host_behind(_ipv4(networks["bridge"]) if "bridge" in networks else []),
        published={
            container["Names"][0].removeprefix("/"): [
                port["IP"] for port in container["Ports"] if "PublicPort" in port
            ]
            for container in containers
        },
        networks={
            name: EngineNetwork(
                network["Id"],
                (network["Labels"] or {}).get(labels.STACK),
                [config["Subnet"] for config in _ipv4(network)],
            )
            for name, network in networks.items()
        },
        images=to_run,
    )


def is_own_address(address: str) -> bool:
    """Whether an IPv4 address is one of this machine's, so that a port can be opened on it."""
    return _can_bind(address, 0)


async def before_container(arguments: pulumi.ResourceHookArgs) -> None:
    """Make way for a container, and wait until its network is there.

    Pulumi makes only what its state does not hold: a container that is there all the same, with
    this stack's labels, comes from a run that was killed before it could note it down, and is
    removed.

    The container is made beside its network, not after it: the provider takes 2 seconds to report
    a network that the engine has made in a fraction of one.

    Raises:
        TakenError: the name or a port is somebody else's.
        EngineError: the network did not appear.
    """
    inputs = arguments.new_inputs or {}
    await in_thread(_remove_leftover_container, inputs)
    for port in inputs.get("ports") or []:
        _check_port(port["ip"], int(port["external"]), arguments.name)
    for network in inputs.get("networksAdvanced") or []:
        await _network_appears(network["name"])


async def before_network(arguments: pulumi.ResourceHookArgs) -> None:
    """Make sure that the name of a network is free.

    Raises:
        TakenError: it is somebody else's.
    """
    inputs = arguments.new_inputs or {}
    for network in await in_thread(_networks, inputs["name"]):
        check_owner("network", inputs, network.attrs["Labels"])


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Call the engine without holding up the program.

    In threads of its own: those of the event loop are all taken while as many resources are being
    made, and each of these may be waiting for this very call.
    """
    return await asyncio.get_running_loop().run_in_executor(_threads(), call, *arguments)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="engine")


def _ipv4(network: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    return [config for config in network["IPAM"]["Config"] or [] if ":" not in config["Subnet"]]


def _host_behind(bridge: Sequence[Mapping[str, str]]) -> str:
    for config in bridge:
        # Engine 20.10 names no gateway; it is the subnet's first address.
        gateway = config.get("Gateway") or str(next(IPv4Network(config["Subnet"]).hosts()))
        return gateway if is_own_address(gateway) else ENGINE_IN_VM
    return ENGINE_IN_VM


def _remove_leftover_container(inputs: Mapping[str, Any]) -> None:
    named = client().containers.list(all=True, filters={"name": f"^/{re.escape(inputs['name'])}$"})
    for container in named:
        check_owner("container", inputs, container.labels)
        container.remove(force=True, v=True)


def _networks(name: str) -> Sequence[Any]:
    return client().networks.list(names=[f"^{re.escape(name)}$"])


async def _network_appears(name: str) -> None:
    try:
        async with asyncio.timeout(NETWORK_WITHIN_S):
            while not await in_thread(_networks, name):  # noqa: ASYNC110
                await asyncio.sleep(NETWORK_POLL_S)
    except TimeoutError:
        raise EngineError(f"the network {name} was not made within {NETWORK_WITHIN_S} s") from None


def check_owner(kind: str, inputs: Mapping[str, Any], found: Mapping[str, str] | None) -> None:
    """Make sure that what has the name of a resource is its stack's.

    Args:
        kind: what it is, in the engine's words.
        inputs: the resource's properties.
        found: the labels of what has its name.

    Raises:
        TakenError: it is not.
    """
    wanted = {label["label"]: label["value"] for label in inputs["labels"]}
    if (found or {}).get(labels.STACK) != wanted[labels.STACK]:
        raise TakenError(
            f"the {kind} name {inputs['name']} is taken by one that is not this stack's; "
            f"remove it (docker {kind} rm {inputs['name']}) or set caches.namePrefix"
        )


def _check_port(address: str, port: int, resource: str) -> None:
    if is_own_address(address) and not _can_bind(address, port):
        raise TakenError(
            f"{resource}: port {port} on {address} is taken by {_user_of(port)}; "
            "free it, or set another one in caches.upstreams"
        )


def _user_of(port: int) -> str:
    for container in client().containers.list(filters={"publish": str(port)}):
        return f"the container {container.name}"
    return "a process of this machine"


def _can_bind(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A connection that was closed a moment ago does not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


@cache
def client() -> DockerClient:
    """The engine that pulumi-docker talks to as well."""
    host = pulumi.Config("docker").get("host")
    return DockerClient(base_url=host) if host else DockerClient.from_env()
