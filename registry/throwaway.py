"""A throw-away registry on the storage of a cache: it serves what is stored, and asks nobody."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx2
from docker import DockerClient
from docker.errors import DockerException, NotFound
from docker.models.containers import Container

from registry.errors import RegistryError

STORAGE_FOLDER = "/var/lib/registry"
PORT = "5000/tcp"
LOOPBACK = "127.0.0.1"
# The engine chooses one.
ANY_PORT = 0
LABEL = "talos-registry-cache.throwaway"
ANSWERS_WITHIN_S = 20.0
POLL_S = 0.05


class ThrowawayError(RegistryError):
    """Such a registry could not be started."""


@contextmanager
def serving(
    engine: DockerClient, volume: str, image: str, *, writable: bool = False
) -> Iterator[str]:
    """Run a registry without an upstream on the volume of a cache; it is removed at the end.

    What a cache proxies, it answers with what it holds or with what its upstream has. This one can
    only know what is stored, so what it serves is proved to be there. One that is writable can
    mount a blob into another repository, which a proxying registry refuses.

    Args:
        engine: the engine that has the volume.
        volume: the volume of the cache.
        image: the image of the cache.
        writable: whether it takes what is pushed to it; only this machine reaches it.

    Yields:
        Its URL.

    Raises:
        ThrowawayError: the engine has no such volume or image, or the registry does not answer.
    """
    try:
        # Else the engine would make an empty one.
        engine.volumes.get(volume)
        remove_leftovers(engine, volume)
        container = _run(engine, volume, image, writable=writable)
    except (DockerException, OSError) as error:
        raise ThrowawayError(f"cannot serve the volume {volume}: {error}") from error
    try:
        yield _wait(container)
    finally:
        remove(container)


def remove_leftovers(engine: DockerClient, volume: str) -> None:
    """Remove what a run that was killed has left."""
    leftovers = engine.containers.list(
        all=True, filters={"label": f"{LABEL}={volume}"}, ignore_removed=True
    )
    for container in leftovers:
        remove(container)


def remove(container: Container) -> None:
    """Remove a container, whatever it is doing."""
    with suppress(NotFound):
        container.remove(force=True, v=True)


def _run(engine: DockerClient, volume: str, image: str, *, writable: bool) -> Container:
    environment = {"OTEL_TRACES_EXPORTER": "none", "REGISTRY_LOG_LEVEL": "error"}
    if not writable:
        # The leaf's own variable, …_READONLY_ENABLED, makes distribution 3.1 panic.
        environment["REGISTRY_STORAGE_MAINTENANCE"] = "{readonly: {enabled: true}}"
    return engine.containers.run(
        image,
        detach=True,
        labels={LABEL: volume},
        environment=environment,
        ports={PORT: (LOOPBACK, ANY_PORT)},
        volumes={volume: {"bind": STORAGE_FOLDER, "mode": "rw" if writable else "ro"}},
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )


def _wait(container: Container) -> str:
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while time.monotonic() < deadline:
        container.reload()
        if container.status not in {"created", "running"}:
            break
        bindings = container.ports.get(PORT)
        if bindings and _answers(url := f"http://{LOOPBACK}:{bindings[0]['HostPort']}"):
            return url
        time.sleep(POLL_S)
    said = container.logs(tail=5).decode(errors="replace").strip()
    raise ThrowawayError(f"a registry on a cache's volume does not answer: {said or 'no log'}")


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/v2/", trust_env=False).is_success
    except httpx2.TransportError:
        return False
