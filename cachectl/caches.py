"""Working with several caches at once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

from docker import DockerClient

from cachectl import console
from cachectl.stack import Cache, Stack
from registry import lock, reference, storage, throwaway, volume
from registry.platforms import Platform

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 8
TAG_FILES = ["busybox", "find", ".", "-path", "*/_manifests/tags/*/current/link"]


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
            url = registries.enter_context(
                throwaway.serving(client, cache.volume, cache.image, writable=writable)
            )
            return cache.registry, url

        yield dict(at_once(serve, list(caches)))


def stored_images(client: DockerClient, caches: Iterable[Cache]) -> tuple[str, ...]:
    """All tags that caches have, as image references."""

    def tags(cache: Cache) -> list[str]:
        with volume.mounted(client, cache.volume, cache.image) as mounted:
            listed = mounted.run(TAG_FILES)
        return [f"{cache.registry}/{repository}:{tag}" for repository, tag in tags_in(listed)]

    return tuple(text for texts in at_once(tags, list(caches)) for text in texts)


def tags_in(listed: str) -> list[tuple[str, str]]:
    """The repositories and tags in what `find` has listed in a storage."""
    found = (storage.tag_at(line.strip().removeprefix("./")) for line in listed.splitlines())
    return sorted(tag for tag in found if tag)


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
