"""The caches of a stack, found on the engine by the labels that all of them carry."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container

from cachectl.errors import CachectlError, UsageError
from components import labels
from registry.endpoints import Endpoint, Endpoints
from registry.throwaway import PORT, STORAGE_FOLDER

# What an engine may need for one call: to take in a large layer, or to move thousands of files.
ENGINE_WITHIN_S = 600
HEALTHY_WITHIN_S = 60.0
POLL_S = 0.1

Reader = tuple[str, str]
"""User name and password of somebody who may read."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache as its container shows it.

    Attributes:
        registry: the registry host that it is for, such as docker.io.
        container: its name.
        is_running: whether it runs.
        health: what its health check says, such as healthy, or its state where it does not run.
        endpoint: its URL on this machine, or None where it is published nowhere.
        mirror: its URL as nodes reach it; the endpoint where there is no other address.
        remote_url: the registry API of its upstream, or None for one that serves only.
        volume: the volume that holds what is cached.
        image: the ID of its image.
        ca: the certificate of the authority by which it is trusted, PEM; None without TLS.
    """

    registry: str
    container: str
    is_running: bool
    health: str
    endpoint: str | None
    mirror: str | None
    remote_url: str | None
    volume: str
    image: str
    ca: str | None


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that is up.

    Attributes:
        name: its name.
        caches: by registry host.
    """

    name: str
    caches: Mapping[str, Cache]

    def endpoints(self, reader: Reader | None = None) -> Endpoints:
        """Each cache as this machine reaches it, by registry host.

        Args:
            reader: who asks; nobody where it is left out.
        """
        return {
            registry: Endpoint(cache.endpoint, cache.ca, *(reader or ()))
            for registry, cache in self.caches.items()
            if cache.endpoint
        }

    def only(self, registries: Iterable[str]) -> Mapping[str, Cache]:
        """Some of its caches; all where none are named.

        Raises:
            UsageError: it has no cache of one of them.
        """
        wanted = list(registries) or list(self.caches)
        if unknown := [registry for registry in wanted if registry not in self.caches]:
            raise UsageError(
                f"the stack {self.name} has no cache of {unknown[0]}; "
                f"it has those of: {', '.join(self.caches)}"
            )
        return {registry: self.caches[registry] for registry in wanted}


@contextmanager
def engine() -> Iterator[DockerClient]:
    """The container engine that DOCKER_HOST names, or this machine's.

    Raises:
        CachectlError: there is none.
    """
    try:
        client = DockerClient.from_env(timeout=ENGINE_WITHIN_S)
    except DockerException as error:
        raise CachectlError(
            f"the container engine does not answer: {error}; DOCKER_HOST names another one"
        ) from error
    try:
        yield client
    finally:
        client.close()


def find(client: DockerClient, name: str | None) -> Stack:
    """A stack and its caches.

    Args:
        client: the engine.
        name: the stack's name; where it is left out, the only one that is up.

    Raises:
        UsageError: there is no such stack, or several.
    """
    stacks: defaultdict[str, list[Cache]] = defaultdict(list)
    for container in client.containers.list(
        all=True, filters={"label": labels.UPSTREAM}, ignore_removed=True
    ):
        if cache := _cache(container):
            stacks[container.labels[labels.STACK]].append(cache)
    if name is None and len(stacks) == 1:
        (name,) = stacks
    if name is None or name not in stacks:
        wrong = "no stack is named" if name is None else f"no stack {name} is up"
        up = ", ".join(sorted(stacks)) or "none"
        raise UsageError(f"{wrong}: set --stack or CACHECTL_STACK; stacks that are up: {up}")
    caches = sorted(stacks[name], key=lambda cache: cache.registry)
    return Stack(name, {cache.registry: cache for cache in caches})


@contextmanager
def stopped(client: DockerClient, cache: Cache) -> Iterator[None]:
    """Stop a cache for a while: it remembers what it had, and would go on without what is removed.

    Raises:
        CachectlError: it does not become healthy again.
    """
    container = client.containers.get(cache.container)
    if not cache.is_running:
        yield
        return
    container.stop()
    try:
        yield
    finally:
        container.start()
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    while _health(container) not in {"healthy", "running"}:
        if time.monotonic() > deadline:
            raise CachectlError(
                f"{cache.container} was started again and is {_health(container)} "
                f"after {HEALTHY_WITHIN_S:.0f} s; see: cachectl logs {cache.registry}"
            )
        time.sleep(POLL_S)
        container.reload()


def _cache(container: Container) -> Cache | None:
    """What a container is as a cache; None for one that only fills a volume with credentials."""
    attributes: Mapping[str, Any] = container.attrs
    bindings = (attributes["HostConfig"]["PortBindings"] or {}).get(PORT)
    volume = next(
        (
            mount["Name"]
            for mount in attributes["Mounts"]
            if mount["Destination"] == STORAGE_FOLDER and mount["Type"] == "volume"
        ),
        None,
    )
    if not bindings or volume is None:
        return None
    environment = dict(
        variable.partition("=")[::2] for variable in attributes["Config"]["Env"] or []
    )
    ca = container.labels.get(labels.CA)
    # Loopback first; an address that is left empty is any.
    addresses = sorted(bindings, key=lambda bound: not _is_loopback(bound["HostIp"]))
    return Cache(
        registry=container.labels[labels.UPSTREAM],
        container=str(container.name),
        is_running=container.status == "running",
        health=_health(container),
        endpoint=_url(addresses[0], ca),
        mirror=_url(addresses[-1], ca),
        remote_url=environment.get("REGISTRY_PROXY_REMOTEURL"),
        volume=volume,
        image=attributes["Image"],
        ca=ca,
    )


def _health(container: Container) -> str:
    state = container.attrs["State"]
    if state["Status"] != "running":
        return str(state["Status"])
    return str(state.get("Health", {}).get("Status", "running"))


def _is_loopback(address: str) -> bool:
    return bool(address) and ip_address(address).is_loopback


def _url(bound: Mapping[str, str], ca: str | None) -> str:
    scheme = "http" if ca is None else "https"
    host = bound["HostIp"] if bound["HostIp"] not in {"", "0.0.0.0"} else "127.0.0.1"  # noqa: S104
    return f"{scheme}://{host}:{bound['HostPort']}"
