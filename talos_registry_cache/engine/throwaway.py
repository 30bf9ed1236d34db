"""Containers that are thrown away: made for a while, and gone with the process that made them."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from talos_registry_cache.engine import running_process

LABEL = "talos-registry-cache.throwaway"
"""What a container works on that is thrown away."""
OWNER = "talos-registry-cache.owner"
"""The process that has made it; see `engine.running_process`."""
NO_RIGHTS: Mapping[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}
# Nothing works that long; this is for processes of which nothing can be known from here.
VERY_OLD_S = 24 * 3600


def create(engine: DockerClient, image: str, what: str, **settings: Any) -> Container:
    """Make a container that is to be removed by `remove`, whatever happens.

    What other processes have left that ended without doing so is removed first.

    Args:
        engine: the engine.
        image: the image.
        what: what it works on.
        settings: what else the engine's client takes; it has no rights that are not given there.

    Raises:
        docker.errors.DockerException: the engine does not make it.
    """
    remove_leftovers(engine)
    # In a thread, so that an interruption cannot come between its making and our knowing of it.
    with ThreadPoolExecutor(max_workers=1) as thread:
        making = thread.submit(
            engine.containers.create,
            image,
            labels={LABEL: what, OWNER: running_process.own()},
            **{**NO_RIGHTS, **settings},
        )
        try:
            return making.result()
        except KeyboardInterrupt:
            with suppress(DockerException):
                remove(making.result())
            raise


def remove(container: Container) -> None:
    """Remove a container, whatever it is doing."""
    client: Any = container.client
    _remove(client.api, str(container.id))


def remove_leftovers(engine: DockerClient) -> None:
    """Remove what processes have left that are gone, or may be gone and have left it long ago."""
    oldest = time.time() - VERY_OLD_S
    for one in _all(engine):
        lives = running_process.lives(one["Labels"].get(OWNER, ""))
        if lives is False or (lives is None and one["Created"] < oldest):
            # What stays takes some room, and is tried again.
            with suppress(APIError):
                _remove(engine.api, one["Id"])


def remove_own(engine: DockerClient) -> None:
    """Remove all that this process has made, at once; what cannot be removed is left to others."""
    with suppress(DockerException, OSError), ThreadPoolExecutor() as threads:
        own = [
            one["Id"] for one in _all(engine) if one["Labels"].get(OWNER) == running_process.own()
        ]
        list(threads.map(lambda one: _remove(engine.api, one), own))


def _all(engine: DockerClient) -> list[dict[str, Any]]:
    api: Any = engine.api
    found: list[dict[str, Any]] = api.containers(all=True, filters={"label": LABEL})
    return found


def _remove(api: Any, container: str) -> None:
    try:
        api.remove_container(container, force=True, v=True)
    except NotFound:
        pass
    except APIError as error:
        # Somebody else is removing it.
        if "already in progress" not in str(error):
            raise
