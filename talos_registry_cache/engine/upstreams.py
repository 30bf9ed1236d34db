"""The upstreams of caches, with the logins that the caches have for them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from talos_registry_cache.engine import labels, processes, services
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.upstream import Remote

COMMAND = "REGISTRY_PROXY_EXEC_COMMAND"
TRIES = 3


class LoginUnknownError(RegistryError):
    """A cache does not tell its login."""


@dataclass(frozen=True)
class _Login:
    """What a docker-credential-helper prints."""

    username: Annotated[str, Field(alias="Username")]
    password: Annotated[str, Field(alias="Secret")]


_LOGIN = TypeAdapter(_Login)


def find(client: DockerClient, name: str) -> Remote | None:
    """Find the upstream of a cache.

    Args:
        client: the engine.
        name: the name of the cache's container or service.

    Returns:
        The upstream; None for a cache without one. Swarm services, and registries that do not run,
        do not tell their logins.

    Raises:
        ProcessError: there is no such cache.
        LoginUnknownError: a cache that runs does not tell its login.
    """
    found = processes.find(client, name)
    if isinstance(found, Container):
        environment = services.as_mapping(found.attrs["Config"]["Env"])
        remote = _remote(environment, found.labels)
        return remote and _with_login(remote, found, environment)
    behind = found.attrs["Spec"]["Labels"].get(labels.REGISTRY)
    registry = processes.service(client, behind) if behind else found
    if registry is None:
        raise processes.ProcessError(f"there is no service {behind}")
    spec = registry.attrs["Spec"]
    container = spec["TaskTemplate"]["ContainerSpec"]
    return _remote(services.as_mapping(container.get("Env")), spec["Labels"])


def _remote(environment: Mapping[str, str], found: Mapping[str, str]) -> Remote | None:
    return Remote.of_registry(environment, found.get(labels.AUTHORITIES))


def _with_login(remote: Remote, registry: Container, environment: Mapping[str, str]) -> Remote:
    """Ask the credential command of a registry, as the registry does."""
    if COMMAND not in environment or registry.status != "running":
        return remote
    command = ["sh", "-c", f"{environment[COMMAND]} get </dev/null"]
    # A busy engine may lose an output (seen with 20.10).
    for _ in range(TRIES):
        try:
            _, printed = registry.exec_run(command, stderr=False)
            login = _LOGIN.validate_json(printed if isinstance(printed, bytes) else b"")
        except ValidationError:
            continue
        except DockerException as error:
            raise LoginUnknownError(f"{registry.name} does not tell its login: {error}") from error
        return replace(remote, username=login.username, password=login.password)
    raise LoginUnknownError(f"{registry.name} does not tell its login")
