"""What the components ask of the container engine itself, beside the resources they declare."""

import asyncio
import re
import secrets
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, TypeVar

import pulumi
from docker import DockerClient
from docker.errors import APIError, DockerException

from talos_registry_cache.engine import labels, registry_image

from . import dynamic_provider

T = TypeVar("T")

ENGINE_IN_VM = "host.docker.internal"
NETWORK_WITHIN_S = 30
NETWORK_POLL_S = 0.05
OTHERS_WITHIN_S = 15
OTHERS_BEGIN_WITHIN_S = 0.5

# The containers between their first hook and their creation, by the names of their resources.
_in_preparation: set[str] = set()
EngineError = dynamic_provider.EngineError
LISTENS = "0A"
LOCAL_URLS = ("http+docker://localhost", "http+docker://localnpipe")


class TakenError(Exception):
    """A name or a port that a resource needs belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class EngineNetwork:
    """A network that the engine has.

    Attributes:
        id: its ID.
        stack: the stack whose caches it is made for, or None.
        subnets: its IPv4 subnets.
        labels: its labels.
    """

    id: str
    stack: str | None
    subnets: Sequence[str]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineContainer:
    """A container of the stack that the engine has.

    Attributes:
        state: its state, in the engine's words.
        labels: its labels.
        networks: the IDs of the networks that it is on.
        volumes: the names of the volumes that it mounts.
    """

    state: str
    labels: Mapping[str, str]
    networks: Collection[str]
    volumes: Collection[str]


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
        stack: the stack.
        containers: its containers, running or not, by name.
        volumes: the labels of the engine's volumes, by name.
        generation: what marks the resources that are made now, or nothing where none are marked.
        is_local: whether the engine is reached without a network.
    """

    mirror_host: str
    published: Mapping[str, Sequence[str]]
    networks: Mapping[str, EngineNetwork] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    stack: str = ""
    containers: Mapping[str, EngineContainer] = field(default_factory=dict)
    volumes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    generation: str = ""
    is_local: bool = True


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
        containers = api.containers(all=True, filters={"label": f"{labels.STACK}={stack}"})
        # One that is being removed may have no name.
        containers = [container for container in containers if container["Names"]]
        volumes = api.volumes()["Volumes"] or []
        to_run = {one: registry_image.on_engine(client(), one) for one in references}
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
                (network["Labels"] or {}).get(labels.STACK),
                [config["Subnet"] for config in _ipv4(network)],
                network["Labels"] or {},
            )
            for name, network in networks.items()
        },
        images=to_run,
        stack=stack,
        containers={_name(container): _container(container) for container in containers},
        volumes={volume["Name"]: volume["Labels"] or {} for volume in volumes},
        # What is made for a pull request's preview is compared and thrown away.
        generation="" if dynamic_provider.is_simulated() else secrets.token_hex(4),
        is_local=api.base_url in LOCAL_URLS,
    )


def _name(container: Mapping[str, Any]) -> str:
    return str(container["Names"][0].removeprefix("/"))


def _container(found: Mapping[str, Any]) -> EngineContainer:
    return EngineContainer(
        state=found["State"],
        labels=found["Labels"],
        networks=[one["NetworkID"] for one in found["NetworkSettings"]["Networks"].values()],
        volumes=[mount["Name"] for mount in found["Mounts"] if mount["Type"] == "volume"],
    )


def is_own_address(address: str) -> bool:
    """Whether an IPv4 address is one of this machine's, so that a port can be opened on it."""
    return _can_bind(address, 0)


async def before_container(arguments: pulumi.ResourceHookArgs) -> None:
    """Make way for a container.

    Pulumi makes only what its state does not hold: a container that is there all the same, with
    this stack's labels, comes from a run that was killed before it could note it down, and is
    removed.

    Raises:
        TakenError: the name or a port is somebody else's.
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
    """Note that the last hook before the creation of a container is done."""
    _in_preparation.discard(container)


async def _others_are_prepared() -> None:
    """Wait until the containers that are being prepared can be created.

    Pulumi ends the program as soon as a resource fails, and with the program the hooks of all other
    resources. What is wrong with one cache is no reason to leave the others out.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(OTHERS_WITHIN_S):
            await asyncio.sleep(OTHERS_BEGIN_WITHIN_S)
            while _in_preparation:  # noqa: ASYNC110
                await asyncio.sleep(NETWORK_POLL_S)


class NetworkHooks:
    """What is done around the making of a network, and of the containers that are on it.

    Containers are made beside their network, not after it: the provider takes 2 seconds to report
    a network that the engine has made in a fraction of one.

    A network that is there although the state does not hold it makes way for the one that is made.
    Containers that the state does hold may be on it; they get onto the new one.
    """

    def __init__(self, name: str) -> None:
        """Prepare for the network of a name."""
        self._name = name
        self._is_noted = False
        self._is_refused = False
        self._settled = asyncio.Event()
        self._detached: list[str] = []

    def watch(self, network: pulumi.CustomResource) -> None:
        """Have containers wait no longer once the state holds this network."""
        network.id.apply(self._note)

    async def before_network(self, arguments: pulumi.ResourceHookArgs) -> None:
        """Make way for the network.

        Raises:
            TakenError: its name is somebody else's, or it is in use.
        """
        try:
            await in_thread(self._make_way, arguments.new_inputs or {})
        except Exception:
            self._is_refused = True
            raise
        finally:
            self._settled.set()

    async def after_network(self, arguments: pulumi.ResourceHookArgs) -> None:
        """Bring the containers back that were on a network that has made way."""
        await in_thread(self._attach, arguments.id)

    async def before_container(self, arguments: pulumi.ResourceHookArgs) -> None:
        """Wait until the network is there that a container is to be on.

        Raises:
            EngineError: it did not appear.
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
                f"the network {self._name} was not made within {NETWORK_WITHIN_S} s"
            ) from None
        if self._is_refused:
            raise EngineError(f"the network {self._name} was not made")

    def _note(self, _: str) -> None:
        self._is_noted = True
        self._settled.set()

    def _make_way(self, inputs: Mapping[str, Any]) -> None:
        for network in _networks(self._name):
            check_owner("network", inputs, network.attrs["Labels"])
            network.reload()
            # Of a network of a Swarm, the containers are other nodes' as well.
            is_local = network.attrs["Driver"] == "bridge"
            for container in network.attrs["Containers"] or () if is_local else ():
                # It may have made way itself by now. If not, removing the network fails.
                with suppress(APIError):
                    network.disconnect(container, force=True)
                    self._detached.append(container)
            try:
                network.remove()
            except APIError as error:
                raise TakenError(
                    f"the network {self._name} is in use and cannot be made anew: "
                    f"{error.explanation}"
                ) from error

    def _attach(self, ident: str) -> None:
        for container in self._detached:
            # It may have made way by now. If not, the next `up` finds it off the network.
            with suppress(APIError):
                client().networks.get(ident).connect(container)


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
    containers = client().containers
    # One that is being started has its port before it counts as running.
    for container in containers.list(all=True, filters={"publish": str(port)}):
        return f"the container {container.name}"
    sockets = _listening(port)
    for container in containers.list() if sockets else ():
        # On the machine's own network nothing is published, and the process itself listens.
        if container.attrs["HostConfig"]["NetworkMode"] == "host":
            processes = container.top(ps_args="-eo pid")["Processes"]
            if any(_open_sockets(process) & sockets for (process,) in processes):
                return f"the container {container.name}"
    return "a process of this machine"


def _listening(port: int) -> set[str]:
    """The sockets that listen on a port, as the kernel names them; none where it tells nothing."""
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == LISTENS and int(local.rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{inode}]")
    return found


def _open_sockets(process: str) -> set[str]:
    """What a process has open, as far as we may see it."""
    found = set()
    with suppress(OSError):
        for file in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                found.add(str(file.readlink()))
    return found


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
