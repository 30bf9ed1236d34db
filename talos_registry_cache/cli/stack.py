"""The caches of a stack, found on the engine by their labels."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container

from talos_registry_cache.cli.errors import CachectlError, UsageError
from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.engine import (
    labels,
    processes,
    selection,
    services,
    supported,
    temporary_container,
    upstreams,
)
from talos_registry_cache.engine.temporary_registry import PORT
from talos_registry_cache.engine.volume import STORAGE_FOLDER
from talos_registry_cache.registry.client import Endpoints
from talos_registry_cache.registry.s3_location import S3Location
from talos_registry_cache.registry.upstream import Remote

# One call may write a large layer or move thousands of files.
ENGINE_WITHIN_S = 600
# How a registry behind a front listens: on a socket that only the front reaches.
SOCKET = ("REGISTRY_HTTP_NET", "unix")

# A label of the tasks of a service.
OF_SERVICE = "com.docker.swarm.service.name"

Reader = tuple[str, str]
"""User name and password for caches that need one."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache, read from its container or service.

    A cache with a front has two containers: the front, which clients reach, and the registry
    behind it.

    Attributes:
        registry: the registry host that it caches, such as docker.io.
        name: the name of its container or service; with a front, of the front's container.
        process: the name of the container or service that runs the registry; without a front,
            the same as `name`.
        is_service: whether it is a service.
        is_running: whether it runs, with its front.
        health: its health, such as healthy, or its state if it does not run; with a front, of the
            worse of the two containers; for a service that does not run on all of its nodes, on
            how many it does.
        endpoint: its URL on this machine, or None if it is not published.
        mirror: its URL for nodes; the endpoint if it has no other address.
        remote: its upstream, or None for a cache without an upstream.
        storage: its storage: the name of a volume, or a location in an object store.
        image: the ID or the name of the registry's image; empty if the registry behind a front is
            gone.
        ca: the certificates of its authorities, PEM; None without TLS.
        published: the addresses at which its port is published, for a container.
        restarts: how often the engine restarted it, or its front, after it had ended by itself.
        was_out_of_memory: whether it, or its front, was killed because it exceeded its memory
            limit.
        why_unhealthy: the last output of the health check if it is unhealthy, or the name of a
            missing container; else empty.
        is_local: whether it is the local registry, which has no upstream.
    """

    registry: str
    name: str
    process: str
    is_service: bool
    is_running: bool
    health: str
    endpoint: str | None
    mirror: str | None
    remote: Remote | None
    storage: str | S3Location
    image: str
    ca: str | None
    published: tuple[str, ...] = ()
    restarts: int = 0
    was_out_of_memory: bool = False
    why_unhealthy: str = ""
    is_local: bool = False

    @property
    def has_front(self) -> bool:
        """Whether clients reach it through a front."""
        return self.process != self.name

    @property
    def processes(self) -> tuple[str, ...]:
        """The names of its containers or of its service: the registry, then the front if any."""
        return tuple(dict.fromkeys((self.process, self.name)))

    @property
    def trouble(self) -> str | None:
        """A message about restarts of its process; None if there were none."""
        if not (self.restarts or self.was_out_of_memory):
            return None
        why = (
            "it exceeded its memory limit, for example with a huge manifest (docs/limits.md)"
            if self.was_out_of_memory
            else f"see: {', '.join(f'docker logs {name}' for name in self.processes)}"
        )
        return f"restarted {self.restarts} times after it had ended by itself; {why}"


@dataclass(frozen=True, slots=True)
class Wildcard:
    """The wildcard mirror of a stack, read from its container.

    Attributes:
        name: the name of its container.
        health: its health, such as healthy, or its state if it does not run.
        mirror: its URL for nodes.
        ca: the certificate of its authority, PEM; None without TLS.
    """

    name: str
    health: str
    mirror: str
    ca: str | None


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that is up.

    Attributes:
        name: its name.
        caches: its caches, by registry host.
        engine: the engine that runs it.
    """

    name: str
    caches: Mapping[str, Cache]
    engine: DockerClient

    def endpoints(self, reader: Reader | None = None) -> Endpoints:
        """The endpoints of its caches on this machine, by registry host.

        Args:
            reader: the user and the password, if the caches need one.
        """
        return {
            registry: Endpoint(cache.endpoint, cache.ca, *(reader or ()))
            for registry, cache in self.caches.items()
            if cache.endpoint
        }

    def only(self, registries: Iterable[str]) -> Mapping[str, Cache]:
        """Some of its caches; all of them if no registry is given.

        Raises:
            UsageError: it has no cache for one of the registries.
        """
        wanted = list(registries) or list(self.caches)
        if unknown := [registry for registry in wanted if registry not in self.caches]:
            raise UsageError(
                f"the stack {self.name} has no cache for {unknown[0]}; "
                f"it has caches for: {', '.join(self.caches)}"
            )
        return {registry: self.caches[registry] for registry in wanted}

    def wildcard(self) -> Wildcard | None:
        """Its wildcard mirror; None if it has none."""
        filters: Any = {"label": [f"{labels.STACK}={self.name}", labels.WILDCARD]}
        for found in self.engine.containers.list(all=True, filters=filters, ignore_removed=True):
            return Wildcard(
                name=str(found.name),
                health=processes.health(found),
                mirror=found.labels[labels.WILDCARD],
                ca=found.labels.get(labels.CA),
            )
        return None


@contextmanager
def connected() -> Iterator[DockerClient]:
    """The container engine that the docker CLI would use.

    Raises:
        CachectlError: the engine does not answer, or is not supported.
        SelectionError: the selected Docker context does not exist.
    """
    selected = selection.select()
    if problem := supported.why_not_at(selected.host):
        raise CachectlError(problem)
    selected.export()
    try:
        client = DockerClient.from_env(timeout=ENGINE_WITHIN_S)
    except DockerException as error:
        raise CachectlError(
            f"no container engine answers at {selected}: {error}; "
            "to use another one, set DOCKER_HOST or select a Docker context"
        ) from error
    try:
        if problem := supported.why_not(client.version()):
            raise CachectlError(problem)
        yield client
    finally:
        client.close()


@contextmanager
def opened(name: str | None) -> Iterator[Stack]:
    """A stack on the engine.

    Args:
        name: the stack's name; None for the only one that is up.

    Raises:
        CachectlError: the engine does not answer.
        UsageError: the stack is not up, or several are and no name is given.
    """
    with connected() as client:
        try:
            yield find(client, name)
        except KeyboardInterrupt:
            # Whichever command was interrupted.
            temporary_container.remove_own(client)
            raise


def find(client: DockerClient, name: str | None) -> Stack:
    """A stack and its caches.

    Args:
        client: the engine.
        name: the stack's name; None for the only one that is up.

    Raises:
        UsageError: the stack is not up, or several are and no name is given.
    """
    stacks = every(client)
    if name is None and len(stacks) == 1:
        (name,) = stacks
    if name is None or name not in stacks:
        wrong = "no stack is given" if name is None else f"the stack {name} is not up"
        up = ", ".join(sorted(stacks)) or "none"
        raise UsageError(f"{wrong}: set --stack or CACHECTL_STACK; stacks that are up: {up}")
    caches = sorted(stacks[name], key=lambda cache: cache.registry)
    return Stack(name, {cache.registry: cache for cache in caches}, client)


def every(client: DockerClient) -> Mapping[str, Sequence[Cache]]:
    """The caches of every stack on an engine, by the stack's name."""
    stacks: defaultdict[str, list[Cache]] = defaultdict(list)
    containers = client.containers.list(
        all=True, filters={"label": labels.UPSTREAM}, ignore_removed=True
    )
    named = {str(container.name): container for container in containers}
    behind = {container.labels.get(labels.REGISTRY) for container in containers}
    for container in containers:
        cache: Cache | None
        if registry := container.labels.get(labels.REGISTRY):
            cache = _fronted(container, named.get(registry))
        else:
            cache = None if container.name in behind else _without_front(container)
        if cache:
            stacks[container.labels[labels.STACK]].append(cache)
    urls = list(services.find(client))
    of_name = {service["Spec"]["Name"]: service for service, _ in urls}
    of_fronts = {service["Spec"]["Labels"].get(labels.REGISTRY) for service, _ in urls}
    for service, url in urls:
        if service["Spec"]["Name"] not in of_fronts and (one := _cache_of(service, url, of_name)):
            stacks[service["Spec"]["Labels"][labels.STACK]].append(one)
    return stacks


def _without_front(container: Container) -> Cache | None:
    """The cache of a registry whose front is gone; None for a container that is no registry."""
    environment = services.as_mapping(container.attrs["Config"]["Env"])
    storage = _storage(environment, _volumes(container))
    if storage is None or SOCKET not in environment.items():
        return None
    return Cache(
        registry=container.labels[labels.UPSTREAM],
        name=str(container.name),
        process=str(container.name),
        is_service=False,
        is_running=container.status == "running",
        health="no front",
        endpoint=None,
        mirror=None,
        remote=upstreams.of_registry(environment, container.labels),
        storage=storage,
        image=container.attrs["Image"],
        ca=None,
        restarts=_restarts(container),
        was_out_of_memory=_was_out_of_memory(container),
        why_unhealthy="the container of its front is gone",
    )


def _fronted(front: Container, registry: Container | None) -> Cache:
    """A cache with a front.

    Args:
        front: the container of the front.
        registry: the container of the registry; None if it is gone.
    """
    process = front.labels[labels.REGISTRY]
    both = [front] if registry is None else [registry, front]
    environment = services.as_mapping(registry.attrs["Config"]["Env"]) if registry else {}
    worst = next((one for one in both if processes.health(one) not in processes.HEALTHY), front)
    health, why = processes.health(worst), processes.why_unhealthy(worst)
    if registry is None:
        health, why = "no registry", f"there is no container {process}"
    mirror, push_url = front.labels[labels.MIRROR], front.labels.get(labels.LOCAL)
    bindings = _bindings(front)
    endpoint = _url(urlsplit(mirror).scheme, bindings[0]) if bindings else None
    return Cache(
        registry=front.labels[labels.UPSTREAM],
        name=str(front.name),
        process=process,
        is_service=False,
        is_running=registry is not None and all(one.status == "running" for one in both),
        health=health,
        endpoint=push_url or endpoint,
        mirror=mirror,
        remote=upstreams.of_registry(environment, registry.labels if registry else {}),
        # The front mounts the same volume.
        storage=_storage(environment, _volumes(registry or front)) or "",
        image=registry.attrs["Image"] if registry else "",
        ca=front.labels.get(labels.CA),
        published=tuple(bound["HostIp"] for bound in bindings),
        restarts=sum(map(_restarts, both)),
        was_out_of_memory=any(map(_was_out_of_memory, both)),
        why_unhealthy=why,
        is_local=push_url is not None,
    )


def _bindings(container: Container) -> list[Mapping[str, str]]:
    """The addresses at which the engine publishes the port of clients; loopback first."""
    bindings = (container.attrs["HostConfig"]["PortBindings"] or {}).get(PORT) or []
    # An empty address is any address.
    return sorted(bindings, key=lambda bound: not _is_loopback(bound["HostIp"]))


def _volumes(container: Container) -> Mapping[str, str]:
    """The names of a container's volumes, by the paths at which they are mounted."""
    mounts = [mount for mount in container.attrs["Mounts"] if mount["Type"] == "volume"]
    return {mount["Destination"]: mount["Name"] for mount in mounts}


def _restarts(container: Container) -> int:
    return int(container.attrs.get("RestartCount", 0))


def _was_out_of_memory(container: Container) -> bool:
    return bool(container.attrs["State"].get("OOMKilled", False))


def _cache_of(
    service: Mapping[str, Any], url: str | None, others: Mapping[str, Mapping[str, Any]]
) -> Cache | None:
    """The cache of a service; None if clients cannot reach it.

    Args:
        service: a registry, or the front before it.
        url: the URL at which clients reach it; None if it publishes no port.
        others: all services, by name.
    """
    spec = service["Spec"]
    process = spec["Labels"].get(labels.REGISTRY, spec["Name"])
    registry = others.get(process)
    container = registry["Spec"]["TaskTemplate"]["ContainerSpec"] if registry else {}
    environment = services.as_mapping(container.get("Env"))
    volumes = {
        mount["Target"]: mount["Source"]
        for mount in container.get("Mounts", [])
        if mount["Type"] == "volume"
    }
    lost_its_front = SOCKET in environment.items() and process == spec["Name"]
    if url is None and not lost_its_front:
        return None
    running, wanted = min(map(_nodes, filter(None, (registry, service))))
    health, why = "healthy" if running == wanted != 0 else f"{running} of {wanted} nodes", ""
    if registry is None:
        health, why = "no registry", f"there is no service {process}"
    elif lost_its_front:
        health, why = "no front", "the service of its front is gone"
    return Cache(
        registry=spec["Labels"][labels.UPSTREAM],
        name=spec["Name"],
        process=process,
        is_service=True,
        is_running=registry is not None and running > 0,
        health=health,
        endpoint=url,
        mirror=url,
        remote=upstreams.of_registry(environment, registry["Spec"]["Labels"] if registry else {}),
        storage=_storage(environment, volumes) or "",
        image=container.get("Image", ""),
        ca=spec["Labels"].get(labels.CA),
        why_unhealthy=why,
    )


def _nodes(service: Mapping[str, Any]) -> tuple[int, int]:
    """On how many nodes a service runs, and on how many it is to run."""
    status = service["ServiceStatus"]
    return status["RunningTasks"], status["DesiredTasks"]


def _storage(environment: Mapping[str, str], volumes: Mapping[str, str]) -> str | S3Location | None:
    return S3Location.of_registry(environment) or volumes.get(STORAGE_FOLDER)


def _is_loopback(address: str) -> bool:
    return bool(address) and ip_address(address).is_loopback


def _url(scheme: str, bound: Mapping[str, str]) -> str:
    host = bound["HostIp"] if bound["HostIp"] not in {"", "0.0.0.0"} else "127.0.0.1"  # noqa: S104
    return f"{scheme}://{host}:{bound['HostPort']}"
