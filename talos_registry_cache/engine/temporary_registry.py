"""A temporary registry on the storage of a cache, without an upstream."""

import io
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx2
from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container

from talos_registry_cache.engine import file_owner, temporary_container
from talos_registry_cache.engine.volume import STORAGE_FOLDER
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location

PORT = "5000/tcp"
LOOPBACK = "127.0.0.1"
# The engine chooses a free port.
ANY_PORT = 0
PORTS = {PORT: (LOOPBACK, ANY_PORT)}
START_TIMEOUT_S = 20.0
POLL_S = 0.05
PRIVATE_FOLDER = "/credentials"
CREDENTIALS_FILE, AUTHORITIES_FILE = "s3-credentials", "authorities.crt"


class ServingError(RegistryError):
    """A temporary registry does not start."""


@contextmanager
def serving(engine: DockerClient, volume: str, image: str) -> Iterator[str]:
    """Run a registry without an upstream on the volume of a cache; it is removed at the end.

    A cache answers with stored content or with that of its upstream. This registry serves stored
    content only, which proves that the content is there.

    Args:
        engine: the engine that has the volume.
        volume: the volume of the cache.
        image: the image of the cache.

    Yields:
        Its URL, on loopback.

    Raises:
        ServingError: the engine has no such volume or image, or the registry does not answer.
    """
    try:
        # Otherwise the engine would create an empty volume.
        engine.volumes.get(volume)
        container = temporary_container.create(
            engine,
            image,
            volume,
            user=file_owner.user(),
            environment=_environment(writable=False),
            volumes={volume: {"bind": STORAGE_FOLDER, "mode": "ro"}},
            ports=PORTS,
        )
    except (DockerException, OSError) as error:
        raise ServingError(f"cannot serve the volume {volume}: {error}") from error
    with _running(container, f"the volume {volume}") as url:
        yield url


@contextmanager
def serving_objects(
    engine: DockerClient,
    location: S3Location,
    credentials: S3Credentials,
    image: str,
    *,
    writable: bool = False,
) -> Iterator[str]:
    """Run a registry without an upstream on the objects of a cache; see `serving`.

    Args:
        engine: the engine that runs it; its containers have to reach the object store.
        location: the bucket and folder of the cache.
        credentials: the credentials for the store, kept in a file of the container.
        image: the image of the cache.
        writable: whether it can mount a blob into another repository, which a proxying registry
            refuses.

    Yields:
        Its URL, on loopback.

    Raises:
        ServingError: the engine has no such image, or the registry does not answer.
    """
    files = {CREDENTIALS_FILE: credentials.file}
    trust: dict[str, str] = {}
    if location.ca:
        files[AUTHORITIES_FILE] = location.ca
        trust = {"SSL_CERT_DIR": PRIVATE_FOLDER}
    try:
        container = temporary_container.create(
            engine,
            image,
            str(location),
            user=file_owner.user(),
            environment={
                **_environment(writable=writable),
                **location.environment(f"{PRIVATE_FOLDER}/{CREDENTIALS_FILE}"),
                **trust,
            },
            # An anonymous volume, which is removed with the container.
            volumes=[PRIVATE_FOLDER],
            ports=PORTS,
        )
    except (DockerException, OSError) as error:
        raise ServingError(f"cannot serve {location}: {error}") from error
    with _running(container, str(location), files) as url:
        yield url


def _environment(*, writable: bool) -> dict[str, str]:
    environment = {"OTEL_TRACES_EXPORTER": "none", "REGISTRY_LOG_LEVEL": "error"}
    if not writable:
        # The variable …_READONLY_ENABLED makes distribution 3.1 panic.
        environment["REGISTRY_STORAGE_MAINTENANCE"] = "{readonly: {enabled: true}}"
    return environment


@contextmanager
def _running(
    container: Container, what: str, files: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Start a created registry with private files, yield its URL, and remove it at the end."""
    try:
        try:
            if files:
                container.put_archive(PRIVATE_FOLDER, _tar(files))
            container.start()
            url = _wait(container)
        except (DockerException, OSError) as error:
            raise ServingError(f"cannot serve {what}: {error}") from error
        yield url
    finally:
        temporary_container.remove(container)


def _tar(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            content = text.encode()
            entry = tarfile.TarInfo(name)
            # The file belongs to root, and the registry runs as another user.
            entry.size, entry.mode = len(content), 0o444
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _wait(container: Container) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        container.reload()
        if container.status not in {"created", "running"}:
            break
        bindings = container.ports.get(PORT)
        if bindings and _answers(url := f"http://{LOOPBACK}:{bindings[0]['HostPort']}"):
            return url
        time.sleep(POLL_S)
    said = container.logs(tail=5).decode(errors="replace").strip()
    why = said or f"it is published on {LOOPBACK} of the engine's machine, which must be this one"
    raise ServingError(f"the temporary registry on a cache's storage does not answer: {why}")


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/v2/", trust_env=False).is_success
    except httpx2.TransportError:
        return False
