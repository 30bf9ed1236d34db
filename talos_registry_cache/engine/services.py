"""Caches that are Swarm services, as the manager shows them."""

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from docker import DockerClient

from talos_registry_cache.engine import labels, processes
from talos_registry_cache.registry.errors import RegistryError

LOG_TIMEOUT_S = 60
FRAME = struct.Struct(">4xL")
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - the engine's answer for no address


class ServiceError(RegistryError):
    """The log of a Swarm service cannot be read."""


def find(client: DockerClient) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """The registries and fronts that are services; none if the engine is not a Swarm manager.

    Yields:
        Each service as the engine describes it, and the URL at which clients reach it, or None if
        it publishes no port.
    """
    if not processes.manages_swarm(client):
        return
    api: Any = client.api
    addresses = {node["ID"]: _address(node) for node in api.nodes()}
    for service in api.services(filters={"label": labels.UPSTREAM}, status=True):
        yield service, _url(service["Spec"], tasks(client, service["ID"]), addresses)


def tasks(client: DockerClient, service: str) -> list[Mapping[str, Any]]:
    """The running tasks of a service, given by its ID or name."""
    api: Any = client.api
    found = api.tasks(filters={"service": service, "desired-state": "running"})
    return [task for task in found if task["Status"]["State"] == "running"]


def logs(
    client: DockerClient, task: str, *, follow: bool = False, tail: int | str = "all"
) -> Iterator[bytes]:
    """The log of a task, piece by piece.

    The log of the whole service is of no use: engines hold it open for tasks whose containers are
    gone (seen with 20.10).

    Args:
        client: the engine.
        task: the task's ID.
        follow: whether to wait for more output.
        tail: how many of the last lines to start with.

    Raises:
        ServiceError: the engine does not answer.
    """
    api = client.api
    parameters: dict[str, str] = {"stdout": "1", "stderr": "1"}
    parameters |= {"tail": str(tail), "follow": str(int(follow))}
    url = f"{api.base_url}/v{api.api_version}/tasks/{task}/logs"
    timeout_s = None if follow else LOG_TIMEOUT_S
    try:
        with api.get(url, params=parameters, stream=True, timeout=timeout_s) as answer:
            answer.raise_for_status()
            # Each piece has a header with its stream and its length (Docker Engine API, "Attach to
            # a container", stream format).
            while len(header := answer.raw.read(FRAME.size)) == FRAME.size:
                (length,) = FRAME.unpack(header)
                yield answer.raw.read(length)
    except OSError as error:
        raise ServiceError(f"the log of a node cannot be read: {error}") from error


def as_mapping(variables: Iterable[str] | None) -> Mapping[str, str]:
    """Environment variables by name, from a list of NAME=VALUE."""
    return dict(variable.partition("=")[::2] for variable in variables or [])


def scheme(environment: Mapping[str, str]) -> str:
    """The URL scheme of a registry with these environment variables."""
    return "https" if "REGISTRY_HTTP_TLS_CERTIFICATE" in environment else "http"


def _url(
    spec: Mapping[str, Any], running: list[Mapping[str, Any]], addresses: Mapping[str, str]
) -> str | None:
    """The URL at the name that all nodes share; without one, at the address of any node."""
    if shared := spec["Labels"].get(labels.MIRROR):
        return str(shared)
    ports = [
        port["PublishedPort"]
        for port in spec.get("EndpointSpec", {}).get("Ports", [])
        if "PublishedPort" in port
    ]
    hosts = [addresses[task["NodeID"]] for task in running if task["NodeID"] in addresses]
    if not ports or not hosts:
        return None
    environment = as_mapping(spec["TaskTemplate"]["ContainerSpec"].get("Env"))
    return f"{scheme(environment)}://{hosts[0]}:{ports[0]}"


def _address(node: Mapping[str, Any]) -> str:
    """The address of a node; a manager may list its own only as that of a manager."""
    address: str = node["Status"].get("Addr", "")
    if address in {"", ANY_ADDRESS}:
        address = node.get("ManagerStatus", {}).get("Addr", "").rpartition(":")[0]
    return address
