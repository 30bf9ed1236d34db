"""The caches of a stack that are services of a Swarm, as its manager shows them."""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from docker import DockerClient

from talos_registry_cache.engine import labels, processes
from talos_registry_cache.registry.errors import RegistryError

LOG_WITHIN_S = 60
FRAME = struct.Struct(">4xL")
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - what the engine says for it


class ServiceError(RegistryError):
    """A service of a Swarm does not say what it is doing."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service.

    Attributes:
        name: its name.
        labels: its labels.
        environment: the environment variables of its containers.
        volumes: the volumes that these mount, by the folder where they do.
        image: the image.
        wanted: how many nodes are to run it.
        running: how many do; one that is not healthy does not.
        url: where it is reached, or None where it is published nowhere.
    """

    name: str
    labels: Mapping[str, str]
    environment: Mapping[str, str]
    volumes: Mapping[str, str]
    image: str
    wanted: int
    running: int
    url: str | None

    @property
    def health(self) -> str:
        """Whether all of its nodes run it."""
        if self.running == self.wanted != 0:
            return "healthy"
        return f"{self.running} of {self.wanted} nodes"


def find(client: DockerClient) -> Iterator[Service]:
    """The services of stacks; none where the engine manages no Swarm."""
    if not processes.manages_swarm(client):
        return
    api: Any = client.api
    addresses = {node["ID"]: _address(node) for node in api.nodes()}
    for service in api.services(filters={"label": labels.UPSTREAM}, status=True):
        yield _service(service, tasks(client, service["ID"]), addresses)


def tasks(client: DockerClient, service: str) -> list[Mapping[str, Any]]:
    """The tasks of a service, by its ID or name, that run."""
    api: Any = client.api
    found = api.tasks(filters={"service": service, "desired-state": "running"})
    return [task for task in found if task["Status"]["State"] == "running"]


def logs(
    client: DockerClient, task: str, *, follow: bool = False, tail: int | str = "all"
) -> Iterator[bytes]:
    """What a task prints, piece by piece.

    Not the log of its service, which engines hold open for tasks whose containers are gone
    (seen with 20.10).

    Args:
        client: the engine.
        task: the task's ID.
        follow: whether to wait for more.
        tail: how many lines to begin with.

    Raises:
        ServiceError: the engine does not tell.
    """
    api = client.api
    parameters: dict[str, str] = {"stdout": "1", "stderr": "1"}
    parameters |= {"tail": str(tail), "follow": str(int(follow))}
    url = f"{api.base_url}/v{api.api_version}/tasks/{task}/logs"
    within_s = None if follow else LOG_WITHIN_S
    try:
        with api.get(url, params=parameters, stream=True, timeout=within_s) as answer:
            answer.raise_for_status()
            # Each piece has a header: which stream it is of, and its length (Docker's API, "Attach
            # to a container", stream format).
            while len(header := answer.raw.read(FRAME.size)) == FRAME.size:
                (length,) = FRAME.unpack(header)
                yield answer.raw.read(length)
    except OSError as error:
        raise ServiceError(f"the log of a node cannot be read: {error}") from error


def as_mapping(variables: Iterable[str] | None) -> Mapping[str, str]:
    """Environment variables by name, from what the engine says of them."""
    return dict(variable.partition("=")[::2] for variable in variables or [])


def scheme(environment: Mapping[str, str]) -> str:
    """The scheme of the URL of a registry with an environment."""
    return "https" if "REGISTRY_HTTP_TLS_CERTIFICATE" in environment else "http"


def _service(
    service: Mapping[str, Any],
    running: list[Mapping[str, Any]],
    addresses: Mapping[str, str],
) -> Service:
    spec = service["Spec"]
    container = spec["TaskTemplate"]["ContainerSpec"]
    environment = as_mapping(container.get("Env"))
    ports = [
        port["PublishedPort"]
        for port in spec.get("EndpointSpec", {}).get("Ports", [])
        if "PublishedPort" in port
    ]
    hosts = [addresses[task["NodeID"]] for task in running if task["NodeID"] in addresses]
    # The name that all of its nodes share; without one, any of them.
    url = spec["Labels"].get(labels.MIRROR)
    if url is None and ports and hosts:
        url = f"{scheme(environment)}://{hosts[0]}:{ports[0]}"
    return Service(
        name=spec["Name"],
        labels=spec["Labels"],
        environment=environment,
        volumes={
            mount["Target"]: mount["Source"]
            for mount in container.get("Mounts", [])
            if mount["Type"] == "volume"
        },
        image=container["Image"],
        wanted=service["ServiceStatus"]["DesiredTasks"],
        running=service["ServiceStatus"]["RunningTasks"],
        url=url,
    )


def _address(node: Mapping[str, Any]) -> str:
    """A node's address; a manager may know itself by none, and says it as a manager."""
    address: str = node["Status"].get("Addr", "")
    if address in {"", ANY_ADDRESS}:
        address = node.get("ManagerStatus", {}).get("Addr", "").rpartition(":")[0]
    return address
