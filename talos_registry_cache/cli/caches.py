"""Locks, storages and temporary registries of several caches at once."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from typing import Any, TypeVar

from docker import DockerClient

from talos_registry_cache.cli import console, selection
from talos_registry_cache.cli.stack import Cache, Stack
from talos_registry_cache.engine import (
    cache_storage,
    lock,
    processes,
    temporary_container,
    upstreams,
    volume,
)
from talos_registry_cache.engine.cache_storage import CacheStorage, InStore, InVolume
from talos_registry_cache.registry import attachments
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.layout import Tag
from talos_registry_cache.registry.platforms import Platform, Platforms
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.s3_location import S3Location
from talos_registry_cache.registry.upstream import Remote

Item = TypeVar("Item")
Result = TypeVar("Result")
Url = TypeVar("Url", str, str | None)

AT_ONCE = 8
# After an interruption. Work that continues after that changes nothing.
GIVEN_UP_WITHIN_S, GIVEN_UP_EVERY_S = 1.0, 0.05


def storage_of(client: DockerClient, cache: Cache) -> CacheStorage:
    """The storage of a cache.

    Raises:
        ProcessError: the container of its registry is gone.
    """
    if not cache.image:
        raise processes.ProcessError(f"{cache.registry}: {cache.why_unhealthy}")
    match cache.storage:
        case S3Location() as location:
            return InStore(client, location, cache.image)
        case name:
            return InVolume(client, name, cache.image)


@contextmanager
def locked(stack: Stack) -> Iterator[None]:
    """Lock the storages of a stack, once other processes have released them.

    Starts caches that a killed command has left stopped, and removes what a killed import has left
    behind.

    Raises:
        VolumeError: that cannot be removed.
    """
    waiting = f"another command works on the stack {stack.name}; waiting for it"
    with lock.held(stack.engine, stack.name, lambda: console.say(waiting)):
        for cache in stack.caches.values():
            # A service has no container of its own; the next import cleans up there.
            if not cache.is_service:
                _start_again(stack.engine, cache)
                _remove_staging(stack.engine, cache)
        yield


@contextmanager
def serving(client: DockerClient, caches: Iterable[Cache]) -> Iterator[Mapping[str, str]]:
    """Serve the storages of caches by temporary registries without an upstream.

    Yields:
        Their URLs, by registry host.
    """
    with _temporary(client, caches, lambda storage: storage.serving()) as urls:
        yield urls


@contextmanager
def mounting(client: DockerClient, caches: Iterable[Cache]) -> Iterator[Mapping[str, str]]:
    """Mount blobs into other repositories with temporary registries, for caches that need them.

    Yields:
        Their URLs, by registry host.
    """
    with _temporary(client, caches, lambda storage: storage.mounting()) as urls:
        yield {host: url for host, url in urls.items() if url}


@contextmanager
def _temporary(
    client: DockerClient,
    caches: Iterable[Cache],
    run: Callable[[CacheStorage], AbstractContextManager[Url]],
) -> Iterator[Mapping[str, Url]]:
    with ExitStack() as registries:

        def serve(cache: Cache) -> tuple[str, Url]:
            return cache.registry, registries.enter_context(run(storage_of(client, cache)))

        try:
            yield dict(at_once(client, serve, list(caches)))
        finally:
            temporary_container.remove_own(client)


def stored_images(stack: Stack) -> tuple[Reference, ...]:
    """All tags in the storages of a stack's caches but those of attachments, as references."""

    def tags(cache: Cache) -> list[Reference]:
        stored = storage_of(stack.engine, cache).tags()
        return [
            Reference(cache.registry, repository, tag, None)
            for repository, tag in stored
            if not attachments.subject(tag)
        ]

    return tuple(chain.from_iterable(at_once(stack.engine, tags, list(stack.caches.values()))))


def of_images(caches: Mapping[str, Cache], references: Iterable[Reference]) -> list[Cache]:
    """The caches that images belong to."""
    registries = {reference.registry for reference in references}
    return [cache for registry, cache in caches.items() if registry in registries]


def asked_for_referrers(
    client: DockerClient, caches: Iterable[Cache], wanted: Attachments
) -> Mapping[str, Remote]:
    """The upstreams of caches and their logins, by registry host; none without attachments."""
    if wanted is Attachments.NONE:
        return {}

    def remote(cache: Cache) -> tuple[str, Remote | None]:
        return cache.registry, upstreams.find(client, cache.process)

    return {host: one for host, one in at_once(client, remote, list(caches)) if one}


def add_indexes(stack: Stack, indexes: Mapping[str, Mapping[Tag, bytes]]) -> None:
    """Add indexes of referrers to the storages of a stack's caches, unless they are there.

    Args:
        stack: the stack.
        indexes: the indexes, by registry host, and by repository and tag.
    """
    for host, found in indexes.items():
        cache_storage.add_lacking(storage_of(stack.engine, stack.caches[host]), found)


def wanted_platforms(client: DockerClient, texts: Collection[str] | None) -> Platforms:
    """The platforms that a command line names, or that of an engine and the nodes on it.

    Raises:
        UsageError: a text is not a platform.
    """
    if texts:
        return selection.platforms_of(texts)
    version = client.version()
    return (Platform(version["Os"], version["Arch"]),)


def at_once(
    client: DockerClient, work: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result]:
    """Do the same with several items at once; returns the results in order.

    An interruption removes the containers of the work, so that it ends.
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
    """Remove the containers of work until it has ended."""
    left = {one for one in working if not one.cancel()}
    until = time.monotonic() + GIVEN_UP_WITHIN_S
    while left and time.monotonic() < until:
        temporary_container.remove_own(client)
        left = futures.wait(left, timeout=GIVEN_UP_EVERY_S).not_done


def _start_again(client: DockerClient, cache: Cache) -> None:
    started = []
    for name in cache.processes:
        try:
            started.append(processes.start_again(client, name))
        except RegistryError as error:
            # Its storage can be used all the same.
            console.say(f"{cache.registry}: {error}")
    if any(started):
        console.say(f"{cache.registry}: started its cache, which was stopped")


def _remove_staging(client: DockerClient, cache: Cache) -> None:
    if isinstance(cache.storage, str) and volume.holds(
        processes.container(client, cache.process), volume.STAGING
    ):
        with volume.mounted(client, cache.storage, cache.image) as mounted:
            mounted.remove_staged()
        console.say(f"{cache.registry}: removed what a killed import had left behind")
