"""The lines that caches log."""

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from docker import DockerClient

from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.engine import services

# components/placement.py: the user agent, in both forms that the registry logs.
HEALTH_CHECK = ("http.request.useragent=Wget ", '"GET /v2/ HTTP/1.1" 200 2 "" "Wget"')
POLL_S = 0.25


def read(client: DockerClient, cache: Cache) -> Iterator[str]:
    """The lines that a cache has logged, without health checks."""
    for pieces in _streams(client, cache):
        yield from _lines(pieces)


def follow(
    client: DockerClient, caches: Mapping[str, Cache], tail: int
) -> Iterator[tuple[Cache, str] | None]:
    """The lines of caches as they appear, without health checks, each with its cache.

    Args:
        client: the engine.
        caches: the caches.
        tail: how many lines of each cache to start with.

    Yields:
        None if there was none for a moment. It ends when all caches have ended.
    """
    lines: queue.SimpleQueue[tuple[Cache, str]] = queue.SimpleQueue()

    def put(cache: Cache, pieces: Iterator[bytes]) -> None:
        for line in _lines(pieces):
            lines.put((cache, line))

    threads = [
        # Ctrl-C ends the process, and with it these threads.
        threading.Thread(target=put, args=(cache, pieces), daemon=True)
        for cache in caches.values()
        for pieces in _streams(client, cache, follow=True, tail=tail)
    ]
    for thread in threads:
        thread.start()
    while True:
        is_last = not any(thread.is_alive() for thread in threads)
        try:
            yield lines.get(timeout=0 if is_last else POLL_S)
        except queue.Empty:
            if is_last:
                return
            yield None


def _streams(
    client: DockerClient, cache: Cache, *, follow: bool = False, tail: int | str = "all"
) -> Iterable[Iterator[bytes]]:
    """The output of a cache, or of a service on each of its nodes, in pieces."""
    if cache.is_service:
        running = services.tasks(client, cache.name)
        return [services.logs(client, task["ID"], follow=follow, tail=tail) for task in running]
    # Its types do not allow a variable for `follow`.
    container: Any = client.containers.get(cache.name)
    return [iter(container.logs(stream=True, follow=follow, tail=tail))]


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in (line.decode(errors="replace") for line in whole):
            if not any(sign in line for sign in HEALTH_CHECK):
                yield line
