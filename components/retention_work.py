"""Finds and removes images that the settings do not keep, in the dynamic provider's process."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from docker import DockerClient
from pulumi.runtime import rpc

from talos_registry_cache.engine import pruning
from talos_registry_cache.engine.cache_storage import InVolume
from talos_registry_cache.engine.pruning import Pruned, Pruner
from talos_registry_cache.engine.volume import VolumeError
from talos_registry_cache.registry import reference
from talos_registry_cache.registry.retention import Policy

from . import dynamic_provider

MB = 1_000_000
SHOWN = 3

Properties = Mapping[str, Any]


def unwanted(props: Properties) -> dict[str, dict[str, int]]:
    """Count the images to remove and the bytes that this frees, by registry host.

    Caches without any are left out, as are caches whose volume or image does not exist yet.
    """
    if dynamic_provider.is_simulated() or rpc.contains_unknowns(props):
        return {}
    with dynamic_provider.engine() as engine, ThreadPoolExecutor() as threads:
        pruners = _pruners(engine, props)
        planned = dict(zip(pruners, threads.map(_planned, pruners.values()), strict=True))
    if found := {host: one for host, one in planned.items() if one.pruning.images}:
        print(f"to remove: {_summary(found)}", flush=True)  # noqa: T201 - Pulumi shows it
    return {
        host: {"images": len(one.pruning.images), "bytes": one.pruning.freed}
        for host, one in found.items()
    }


def remove(props: Properties) -> None:
    """Remove images; a cache is stopped only if there are any in it.

    Raises:
        RegistryError: a volume cannot be read or changed, or a cache does not run again.
    """
    if dynamic_provider.is_simulated():
        return
    removed = {}
    with dynamic_provider.engine() as engine, dynamic_provider.alone(engine, props["stack"]):
        for host, pruner in _pruners(engine, props).items():
            if pruner.plan().pruning.images:
                removed[host] = pruner.prune()
    if removed:
        print(f"removed: {_summary(removed)}", flush=True)  # noqa: T201 - Pulumi shows it


def _pruners(engine: DockerClient, props: Properties) -> Mapping[str, Pruner]:
    kept = [reference.parse(text) for text in props["kept"]]
    unused_for, max_size = props.get("unusedForSeconds"), props.get("maxBytes")
    unused_since = time.time() - unused_for if unused_for else None

    def pruner(host: str, cache: Mapping[str, str]) -> Pruner:
        own = [image for image in kept if image.registry == host]
        return Pruner(
            engine,
            cache["name"],
            InVolume(engine, cache["storage"], cache["image"]),
            Policy(own, unused_since, max_size),
            partial(pruning.requests_in_log, engine, cache["name"]),
        )

    return {host: pruner(host, cache) for host, cache in props["caches"].items()}


def _planned(pruner: Pruner) -> Pruned:
    try:
        return pruner.plan()
    except VolumeError:
        # `up` creates the volume or pulls the image, and looks again.
        return pruning.NONE


def _summary(found: Mapping[str, Pruned]) -> str:
    names = [f"{host}/{image}" for host, one in found.items() for image in one.pruning.images]
    freed = sum(one.pruning.freed for one in found.values())
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    number = f"{len(names)} image{'' if len(names) == 1 else 's'}"
    return f"{number}, {freed / MB:.1f} MB: {', '.join(names[:SHOWN])}{more}"
