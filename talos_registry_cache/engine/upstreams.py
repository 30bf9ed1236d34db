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
    """The login of a cache for its upstream cannot be read."""


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
        The upstream; None for a cache without one. It has no login if the cache is a Swarm service
        or does not run.

    Raises:
        ProcessError: there is no such cache.
        LoginUnknownError: the login of a cache that runs cannot be read.
    """
    found = processes.find(client, name)
    if isinstance(found, Container):
        environment = services.as_mapping(found.attrs["Config"]["Env"])
        remote = of_registry(environment, found.labels)
        return remote and _with_login(remote, found, environment)
    behind = found.attrs["Spec"]["Labels"].get(labels.REGISTRY)
    registry = processes.service(client, behind) if behind else found
    if registry is None:
        raise processes.ProcessError(f"there is no service {behind}")
    spec = registry.attrs["Spec"]
    container = spec["TaskTemplate"]["ContainerSpec"]
    return of_registry(services.as_mapping(container.get("Env")), spec["Labels"])


def of_registry(environment: Mapping[str, str], found: Mapping[str, str]) -> Remote | None:
    """The upstream of a registry, without its login; None if it has none.

    Args:
        environment: the environment variables of the registry.
        found: its labels.
    """
    return Remote.of_registry(environment, found.get(labels.AUTHORITIES))


def _with_login(remote: Remote, registry: Container, environment: Mapping[str, str]) -> Remote:
    """Ask the credential command of a registry, as the registry does."""
    if COMMAND not in environment or registry.status != "running":
        return remote
    problem = f"cannot read the login of {registry.name} for its upstream"
    command = ["sh", "-c", f"{environment[COMMAND]} get </dev/null"]
    # A busy engine may lose an output (seen with 20.10).
    for _ in range(TRIES):
        try:
            _, printed = registry.exec_run(command, stderr=False)
            login = _LOGIN.validate_json(printed if isinstance(printed, bytes) else b"")
        except ValidationError:
            continue
        except DockerException as error:
            raise LoginUnknownError(f"{problem}: {error}") from error
        return replace(remote, username=login.username, password=login.password)
    raise LoginUnknownError(problem)
