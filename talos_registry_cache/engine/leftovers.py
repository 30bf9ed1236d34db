"""Removal of what killed `cachectl` commands left on the engine, as part of `up`."""

from contextlib import suppress
from typing import Any

from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container

from talos_registry_cache.engine import labels, lock, temporary_container, volume
from talos_registry_cache.registry.errors import RegistryError


class _LockedError(RegistryError):
    """A command is working on the stack, and the staged import may be its own."""


def remove(engine: DockerClient, stack: str) -> None:
    """Remove containers and staged imports that killed commands left.

    Errors are ignored; the next run tries again.

    Args:
        engine: the engine.
        stack: the stack whose caches may hold staged imports.
    """
    with suppress(RegistryError, DockerException, OSError):
        temporary_container.remove_leftovers(engine)
        if staged := [one for one in _caches(engine, stack) if volume.holds(one, volume.STAGING)]:
            with lock.held(engine, stack, _do_not_wait):
                for one in staged:
                    _remove_staging(engine, one)


def _caches(engine: DockerClient, stack: str) -> list[Container]:
    filters: Any = {"label": [f"{labels.STACK}={stack}", labels.UPSTREAM]}
    # Sparse: the list has all that is needed, so no container is inspected.
    return engine.containers.list(filters=filters, sparse=True, ignore_removed=True)


def _remove_staging(engine: DockerClient, cache: Container) -> None:
    for mount in cache.attrs["Mounts"]:
        if mount["Type"] == "volume" and mount["Destination"] == volume.STORAGE_FOLDER:
            with volume.mounted(engine, mount["Name"], cache.attrs["ImageID"]) as mounted:
                mounted.remove_staged()


def _do_not_wait() -> None:
    raise _LockedError("another command is working on the stack")
