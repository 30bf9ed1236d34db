"""This machine's engine, and what a run creates on it."""

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import docker
import httpx2
from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from benchmarks.support.session import CannotRunError
from components import engine as engine_facts
from components.dynamic_provider import EngineError
from components.settings.caches import DEFAULT_IMAGE
from talos_registry_cache.engine import labels, ports, registry_image, temporary_container

LABEL = "talos-registry-cache.benchmark"
FIRST_PORT = 5400
LAST_PORT = 5999
METRICS_PORT = 5001
MADE_WITHIN_S = 5


@dataclass(frozen=True, slots=True)
class Site:
    """The engine and names of one run.

    Attributes:
        engine: the engine.
        image: the registry's image.
        address: this machine's address, as containers reach it.
        name: prefix of the names of everything that the run creates.
    """

    engine: DockerClient
    image: str
    address: str
    name: str

    @contextmanager
    def scope(self) -> Iterator["Scope"]:
        """Containers that are removed together with their volumes."""
        scope = Scope(self)
        try:
            yield scope
        finally:
            _remove_containers(self.engine, f"{LABEL}={scope.name}")

    @contextmanager
    def stack_name(self) -> Iterator[str]:
        """The name of a stack; all its resources are removed at the end, in whatever state."""
        name = f"{self.name}-{secrets.token_hex(2)}"
        try:
            yield name
        finally:
            self._remove_stack(name)

    def free_ports(self, count: int) -> list[int]:
        """Consecutive free ports of this machine, where possible."""
        free = [port for port in range(FIRST_PORT, LAST_PORT) if ports.can_bind("", port)]
        if len(free) < count:
            raise CannotRunError(
                f"fewer than {count} ports from {FIRST_PORT} to {LAST_PORT} are free"
            )
        start = secrets.randbelow(len(free) - count + 1)
        return free[start : start + count]

    def _remove_stack(self, name: str) -> None:
        of_stack = f"{labels.STACK}={name}"
        volumes = self.engine.volumes.list(filters={"label": of_stack})
        for volume in volumes:
            _remove_containers(self.engine, f"{temporary_container.LABEL}={volume.name}")
        _remove_containers(self.engine, of_stack)
        for network in self.engine.networks.list(filters={"label": of_stack}):
            _gone(network)
        for volume in self.engine.volumes.list(filters={"label": of_stack}):
            _gone(volume)


@dataclass(frozen=True, slots=True)
class Scope:
    """Containers with one lifetime."""

    site: Site
    name: str = field(default_factory=lambda: secrets.token_hex(6))

    def run(self, title: str, ports: Mapping[int, int], **options: Any) -> Container:
        """Start a container; see `create`."""
        container = self.create(title, ports, **options)
        try:
            container.start()
        except DockerException as error:
            raise CannotRunError(f"{title} does not start: {error}") from error
        return container

    def create(
        self, title: str, ports: Mapping[int, int], *, image: str = "", **options: Any
    ) -> Container:
        """Create a container.

        Args:
            title: part of its name.
            ports: ports of this machine, by port of the container.
            image: its image; by default that of the registry.
            options: more options of the engine.
        """
        address = self.site.address
        name = f"{self.site.name}-{title}-{self.name}"
        try:
            return self.site.engine.containers.create(
                image or self.site.image,
                name=name,
                labels={LABEL: self.name},
                ports={f"{inner}/tcp": (address, outer) for inner, outer in ports.items()},
                **options,
            )
        except DockerException as error:
            raise CannotRunError(f"{title} cannot be created: {error}") from error
        except KeyboardInterrupt:
            _remove_late(self.site.engine, name)
            raise


@contextmanager
def open_site(name: str) -> Iterator[Site]:
    """Connect to the engine.

    Args:
        name: prefix of the names of everything that the run creates.

    Raises:
        CannotRunError: there is no engine, or it lacks the image.
    """
    try:
        client = docker.from_env(timeout=60)
        image = registry_image.on_engine(client, DEFAULT_IMAGE)
        client.images.get(image)
        address = engine_facts.discover("").mirror_host
    except (DockerException, EngineError) as error:
        raise CannotRunError(f"no engine with the image {DEFAULT_IMAGE}: {error}") from error
    try:
        yield Site(client, image, address, name)
    finally:
        client.close()


def metrics(container: Container, name: str) -> int | None:
    """The sum of a registry's metric over all labels; None if it has no such metric."""
    container.reload()
    networks = container.attrs["NetworkSettings"]["Networks"].values()
    address = next(network["IPAddress"] for network in networks if network["IPAddress"])
    url = f"http://{address}:{METRICS_PORT}/metrics"
    try:
        text = httpx2.get(url, trust_env=False).raise_for_status().text
    except httpx2.HTTPError:
        return None
    found = [line.split()[-1] for line in text.splitlines() if line.startswith(name)]
    return int(sum(map(float, found))) if found else None


def _remove_containers(engine: DockerClient, label: str) -> None:
    found = engine.containers.list(all=True, filters={"label": label}, ignore_removed=True)
    for container in found:
        with suppress(NotFound):
            container.remove(force=True, v=True)


def _remove_late(engine: DockerClient, name: str) -> None:
    """Remove a container that the engine may still be creating after the request was aborted."""
    deadline = time.monotonic() + MADE_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(NotFound):
            engine.containers.get(name).remove(force=True, v=True)
            return
        time.sleep(MADE_WITHIN_S / 20)


def _gone(made: Any) -> None:
    with suppress(NotFound, APIError):
        made.remove()
