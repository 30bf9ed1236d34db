"""Working with several caches at once."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any, TypeVar

from docker import DockerClient

from talos_registry_cache.cli import console
from talos_registry_cache.cli.stack import Cache, Stack
from talos_registry_cache.engine import lock, processes, throwaway
from talos_registry_cache.engine.cache_storage import CacheStorage, InStore, InVolume
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.s3_location import S3Location

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 8
# Of an interruption; what goes on after that, such as a command in a cache, changes nothing.
GIVEN_UP_WITHIN_S, GIVEN_UP_EVERY_S = 1.0, 0.05


def storage_of(client: DockerClient, cache: Cache) -> CacheStorage:
    """Where a cache keeps its content."""
    match cache.storage:
        case S3Location() as location:
            return InStore(client, location, cache.image)
        case volume:
            return InVolume(client, volume, cache.image)


@contextmanager
def alone(stack: Stack) -> Iterator[None]:
    """Keep other processes away from the storages of a stack; waits for one that is at work.

    What was killed at its work may have left a cache stopped, which is started again.
    """
    waiting = f"another process is at work on the stack {stack.name}; waiting for its end"
    with lock.held(stack.engine, stack.name, lambda: console.say(waiting)):
        for cache in stack.caches.values():
            if not cache.is_service:
                _start_again(stack.engine, cache)
        yield


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

        try:
            yield dict(at_once(client, serve, list(caches)))
        finally:
            throwaway.remove_own(client)


def stored_images(client: DockerClient, caches: Iterable[Cache]) -> tuple[Reference, ...]:
    """All tags that caches have, as image references."""

    def tags(cache: Cache) -> list[Reference]:
        stored = storage_of(client, cache).tags()
        return [Reference(cache.registry, repository, tag, None) for repository, tag in stored]

    return tuple(chain.from_iterable(at_once(client, tags, list(caches))))


def of_images(caches: Mapping[str, Cache], references: Iterable[Reference]) -> list[Cache]:
    """The caches of some images."""
    registries = {reference.registry for reference in references}
    return [cache for registry, cache in caches.items() if registry in registries]


def platform_of(client: DockerClient) -> Platform:
    """The platform of an engine, and so of the nodes in its containers."""
    version = client.version()
    return Platform(version["Os"], version["Arch"])


def at_once(
    client: DockerClient, work: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result]:
    """Do the same with each, all at once; the results in order.

    An interruption takes away what the work has started on the engine, so that it ends.
    """
    pool = ThreadPoolExecutor(max_workers=AT_ONCE)
    working = [pool.submit(work, item) for item in items]
    try:
        futures.wait(working)
    except KeyboardInterrupt:
        _give_up(client, working)
        raise
    finally:
        pool.shutdown(wait=False)
    return [one.result() for one in working]


def _give_up(client: DockerClient, working: Iterable[Future[Any]]) -> None:
    """Take away from work what it has started, until it has ended or does something else."""
    left = {one for one in working if not one.cancel()}
    until = time.monotonic() + GIVEN_UP_WITHIN_S
    while left and time.monotonic() < until:
        throwaway.remove_own(client)
        left = futures.wait(left, timeout=GIVEN_UP_EVERY_S).not_done


def _start_again(client: DockerClient, cache: Cache) -> None:
    try:
        if processes.start_again(client, cache.name):
            console.say(f"{cache.registry}: its cache was stopped, and runs again")
    except RegistryError as error:
        # What is stored can be worked with all the same.
        console.say(f"{cache.registry}: {error}")
