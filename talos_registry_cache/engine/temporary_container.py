"""Temporary containers, which are removed with the process that created them."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from talos_registry_cache.engine import running_process

LABEL = "talos-registry-cache.temporary"
"""Label of temporary containers: the volume or location that they work on."""
PROCESS = "talos-registry-cache.process"
"""Label of temporary containers: the process that created them; see `engine.running_process`."""
NO_RIGHTS: Mapping[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}
# For containers of processes that cannot be seen from here; no command runs that long.
VERY_OLD_S = 24 * 3600


def create(engine: DockerClient, image: str, what: str, **settings: Any) -> Container:
    """Create a container, which the caller has to `remove`.

    The containers of processes that ended without doing so are removed first.

    Args:
        engine: the engine.
        image: the image.
        what: the volume or location that the container works on.
        settings: more arguments of `containers.create`; by default, the container has no
            capabilities and a read-only root file system.

    Raises:
        docker.errors.DockerException: the engine refuses or fails.
    """
    remove_leftovers(engine)
    # In a thread, so that Ctrl-C cannot lose a container between its creation and the answer.
    with ThreadPoolExecutor(max_workers=1) as thread:
        creation = thread.submit(
            engine.containers.create,
            image,
            labels={LABEL: what, PROCESS: running_process.own()},
            **{**NO_RIGHTS, **settings},
        )
        try:
            return creation.result()
        except KeyboardInterrupt:
            with suppress(DockerException):
                remove(creation.result())
            raise


def remove(container: Container) -> None:
    """Remove a container, running or not."""
    client: Any = container.client
    _remove(client.api, str(container.id))


def remove_leftovers(engine: DockerClient) -> None:
    """Remove the containers of processes that have ended, and very old ones of unknown state."""
    oldest = time.time() - VERY_OLD_S
    for one in _all(engine):
        lives = running_process.lives(one["Labels"].get(PROCESS, ""))
        if lives is False or (lives is None and one["Created"] < oldest):
            # The next call tries again.
            with suppress(APIError):
                _remove(engine.api, one["Id"])


def remove_own(engine: DockerClient) -> None:
    """Remove all containers of this process at once, ignoring errors."""
    with suppress(DockerException, OSError), ThreadPoolExecutor() as threads:
        own = [
            one["Id"] for one in _all(engine) if one["Labels"].get(PROCESS) == running_process.own()
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
        # Another process is removing it.
        if "already in progress" not in str(error):
            raise
