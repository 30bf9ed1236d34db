"""The hook that sets the owner of a cache's storage; see `engine.file_owner`."""

from collections.abc import Iterator, Mapping
from typing import Any

import pulumi

from talos_registry_cache.engine import file_owner

from . import engine
from .storage import FOLDER_OF_VOLUME


async def before_container(arguments: pulumi.ResourceHookArgs) -> None:
    """Give the storage of a cache to the user that the cache runs as.

    If that fails, the cache is created all the same: some file systems, such as network ones, let
    every user write. The health check reports if the cache cannot write.
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
    # Pulumi shows what is printed; its log cannot be used in this thread.
    file_owner.hand_over(engine.client(), volume, image, lambda line: print(line, flush=True))  # noqa: T201
