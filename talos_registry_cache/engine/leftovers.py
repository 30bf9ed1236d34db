"""What killed commands have left on the engine, as `up` removes it. Commands do so themselves."""

from contextlib import suppress
from typing import Any

from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container

from talos_registry_cache.engine import labels, lock, throwaway, volume
from talos_registry_cache.registry.errors import RegistryError


class _AtWorkError(RegistryError):
    """A command is at work on the stack, so what it finds there is its own."""


def remove(engine: DockerClient, stack: str) -> None:
    """Remove the containers and the staged imports that killed commands have left.

    What cannot be removed is left to the next run.

    Args:
        engine: the engine.
        stack: the stack whose caches may hold staged imports.
    """
    with suppress(RegistryError, DockerException, OSError):
        throwaway.remove_leftovers(engine)
        if staged := [one for one in _caches(engine, stack) if volume.holds(one, volume.STAGING)]:
            with lock.held(engine, stack, _do_not_wait):
                for one in staged:
                    _remove_staging(engine, one)


def _caches(engine: DockerClient, stack: str) -> list[Container]:
    filters: Any = {"label": [f"{labels.STACK}={stack}", labels.UPSTREAM]}
    # Sparse: the engine has said all that is needed.
    return engine.containers.list(filters=filters, sparse=True, ignore_removed=True)


def _remove_staging(engine: DockerClient, cache: Container) -> None:
    for mount in cache.attrs["Mounts"]:
        if mount["Type"] == "volume" and mount["Destination"] == volume.STORAGE_FOLDER:
            with volume.mounted(engine, mount["Name"], cache.attrs["ImageID"]) as mounted:
                mounted.remove([volume.STAGING])


def _do_not_wait() -> None:
    raise _AtWorkError("another command is at work on the stack")
