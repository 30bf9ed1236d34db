"""Working with several caches at once."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from docker import DockerClient

from cachectl import console, s3_keys
from cachectl.stack import Cache, Stack
from registry import lock, reference
from registry.place import Place
from registry.platforms import Platform
from registry.storages import CacheStorage, InStore, InVolume

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 8


def storage_of(client: DockerClient, cache: Cache) -> CacheStorage:
    """Where a cache keeps what it has.

    Raises:
        CachectlError: it is an object store, and there are no keys for it.
    """
    match cache.storage:
        case Place() as place:
            return in_store(client, cache, place)
        case volume:
            return InVolume(client, volume, cache.image)


def in_store(client: DockerClient, cache: Cache, place: Place) -> InStore:
    """The storage of a cache in an object store.

    Raises:
        CachectlError: there are no keys for it.
    """
    return InStore(client, place, s3_keys.find(os.environ, Path.home()), cache.image)


def alone(stack: Stack) -> AbstractContextManager[None]:
    """Keep other processes away from the storages of a stack; waits for one that is at work."""
    waiting = f"another process is at work on the stack {stack.name}; waiting for its end"
    return lock.held(stack.name, lambda: console.say(waiting))


@contextmanager
def serving(
    client: DockerClient, caches: Iterable[Cache], *, writable: bool = False
) -> Iterator[Mapping[str, str]]:
    """Serve the storages of caches by registries without an upstream.

    Yields:
        The URL of each, by registry host.
    """
    with ExitStack() as registries:

        def serve(cache: Cache) -> tuple[str, str]:
            storage = storage_of(client, cache)
            return cache.registry, registries.enter_context(storage.serving(writable=writable))

        yield dict(at_once(serve, list(caches)))


def stored_images(client: DockerClient, caches: Iterable[Cache]) -> tuple[str, ...]:
    """All tags that caches have, as image references."""

    def tags(cache: Cache) -> list[str]:
        stored = storage_of(client, cache).tags()
        return [f"{cache.registry}/{repository}:{tag}" for repository, tag in stored]

    return tuple(text for texts in at_once(tags, list(caches)) for text in texts)


def of_images(caches: Mapping[str, Cache], texts: Iterable[str]) -> list[Cache]:
    """The caches of some images."""
    registries = {reference.parse(text).registry for text in texts}
    return [cache for registry, cache in caches.items() if registry in registries]


def platform_of(client: DockerClient) -> Platform:
    """The platform of an engine, and so of the nodes in its containers."""
    version = client.version()
    return Platform(version["Os"], version["Arch"])


def at_once(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Do the same with each, all at once; the results in order."""
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return list(pool.map(work, items))
