"""What the components ask of the container engine itself, beside the resources they declare."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from functools import cache
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_docker as docker

from components import labels

if TYPE_CHECKING:
    from docker import DockerClient

ENGINE_IN_VM = "host.docker.internal"


class TakenError(Exception):
    """A name or a port that a resource needs belongs to somebody else."""


def mirror_host() -> pulumi.Output[str]:
    """The address of this machine as containers see it.

    The default bridge's gateway where the engine runs on this machine; where it runs in a virtual
    machine (macOS, Windows) that address is not one of ours, and the engine has a name for us.
    """
    return docker.get_network_output(name="bridge").apply(_host_behind)


def published(stack: str) -> pulumi.Output[Mapping[str, Sequence[str]]]:
    """The addresses on which each running container of a stack is published, in engine order.

    Returns:
        Container name to addresses, in the order in which the engine lists them.
    """
    return pulumi.Output.from_input(asyncio.to_thread(_published, stack))


def is_own_address(address: str) -> bool:
    """Whether an IPv4 address is one of this machine's, so that a port can be opened on it."""
    return _can_bind(address, 0)


def _published(stack: str) -> Mapping[str, Sequence[str]]:
    containers = _client().api.containers(filters={"label": f"{labels.STACK}={stack}"})
    return {
        container["Names"][0].removeprefix("/"): [
            port["IP"] for port in container["Ports"] if "PublicPort" in port
        ]
        for container in containers
    }


def _host_behind(bridge: docker.GetNetworkResult) -> str:
    for config in bridge.ipam_configs:
        if config.subnet and ":" not in config.subnet:
            # Engine 20.10 names no gateway; it is the subnet's first address.
            gateway = config.gateway or str(next(IPv4Network(config.subnet).hosts()))
            return gateway if is_own_address(gateway) else ENGINE_IN_VM
    return ENGINE_IN_VM


def clear_container(arguments: pulumi.ResourceHookArgs) -> None:
    """Remove a container that a killed run left behind, and check that the ports are free.

    Pulumi makes only what its state does not hold: a container that is there all the same, with
    this stack's labels, comes from a run that was killed before it could note it down.

    Raises:
        TakenError: the name or a port is somebody else's.
    """
    inputs = arguments.new_inputs or {}
    engine = _client()
    found = engine.containers.list(all=True, filters={"name": f"^/{inputs['name']}$"})
    for container in found:
        _check_owner("container", container.name, container.labels, inputs)
        container.remove(force=True, v=True)
    for port in inputs.get("ports") or []:
        _check_port(port["ip"], int(port["external"]), arguments.name)


def clear_network(arguments: pulumi.ResourceHookArgs) -> None:
    """Remove a network that a killed run left behind; see `clear_container`."""
    inputs = arguments.new_inputs or {}
    for network in _client().networks.list(names=[f"^{inputs['name']}$"]):
        _check_owner("network", network.name, network.attrs["Labels"], inputs)
        network.remove()


def _check_owner(
    kind: str, name: str | None, found: Mapping[str, str], inputs: Mapping[str, Any]
) -> None:
    wanted = {label["label"]: label["value"] for label in inputs["labels"]}
    if found.get(labels.STACK) != wanted[labels.STACK]:
        raise TakenError(
            f"the {kind} name {name} is taken by one that is not this stack's; "
            f"remove it (docker {kind} rm {name}) or set caches.namePrefix"
        )


def _check_port(address: str, port: int, upstream: str) -> None:
    if is_own_address(address) and not _can_bind(address, port):
        raise TakenError(
            f"port {port} on {address} is taken ({_user_of(port)}); "
            f"free it, or set another port for {upstream} in caches.upstreams"
        )


def _user_of(port: int) -> str:
    for container in _client().containers.list(filters={"publish": str(port)}):
        return f"by the container {container.name}"
    return "by a process of this machine"


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
def _client() -> "DockerClient":
    # Imported where something is made: a no-op `up` does without it.
    from docker import DockerClient  # noqa: PLC0415

    return DockerClient.from_env()
