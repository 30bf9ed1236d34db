"""What happens to a cache's storage before its container is made; see `engine.file_owner`."""

from collections.abc import Iterator, Mapping
from typing import Any

import pulumi

from talos_registry_cache.engine import file_owner

from . import engine
from .storage import FOLDER_OF_VOLUME


async def before_container(arguments: pulumi.ResourceHookArgs) -> None:
    """Give the storage of a cache to the user that the cache runs as.

    Where that cannot be, the cache is made all the same: some volumes, such as those on other
    machines, can be written whoever they say that they belong to. Its health check tells.
    """
    inputs = arguments.new_inputs or {}
    for volume in _storages(inputs):
        try:
            await engine.in_thread(_hand_over, volume, inputs["image"])
        except file_owner.OwnershipError as error:
            pulumi.log.warn(f"{arguments.name}: {error}")


def _storages(inputs: Mapping[str, Any]) -> Iterator[str]:
    for volume in inputs.get("volumes") or []:
        if volume["containerPath"] == FOLDER_OF_VOLUME and not volume.get("readOnly"):
            yield volume["volumeName"]


def _hand_over(volume: str, image: str) -> None:
    # What is printed, Pulumi shows; its own log cannot be used in this thread.
    file_owner.hand_over(engine.client(), volume, image, lambda line: print(line, flush=True))  # noqa: T201
