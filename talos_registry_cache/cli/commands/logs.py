"""cachectl logs: show the logs of the caches."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer
from docker import DockerClient

from talos_registry_cache.cli import console, options, stack
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.engine import services
from talos_registry_cache.registry import pull_log

# components/caching_proxy.py: the user agent, in both forms that the registry logs.
HEALTH_CHECK = ("http.request.useragent=Wget ", '"GET /v2/ HTTP/1.1" 200 2 "" "Wget"')


def logs(
    upstreams: Annotated[
        list[str] | None,
        typer.Argument(metavar="UPSTREAM", help="Only these caches, such as docker.io."),
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the logs until Ctrl-C.")
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", "-n", min=0, help="How many lines of each cache to show first.")
    ] = 20,
    stack_name: options.StackName = None,
) -> None:
    """Show the logs of the caches, one line for each request, without health checks.

    The log is that of the cache's front. For the registry behind it, see `docker logs`.

    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    with stack.opened(stack_name) as found:
        caches = found.only(upstreams or [])
        if follow:
            for thread in start_following(
                found.engine, caches, lambda cache, line: _show(cache, line, caches), tail=tail
            ):
                thread.join()
            return
        for cache in caches.values():
            # All of the log, because health checks do not count. The stack's settings bound it.
            logged = lines(found.engine, cache)
            last = deque((line for line in logged if not _is_health_check(line)), maxlen=tail)
            for line in last:
                _show(cache, line, caches)


def start_following(
    client: DockerClient,
    caches: Mapping[str, Cache],
    take: Callable[[Cache, str], None],
    *,
    tail: int,
) -> list[threading.Thread]:
    """Follow the logs of caches: call `take` with each line, in a thread for each log.

    Args:
        client: the engine.
        caches: the caches.
        take: takes a cache and a line of its log; called in several threads.
        tail: how many of the last lines to start with.

    Returns:
        The threads. They end with the containers, or with the process.
    """

    def read(cache: Cache, stream: Iterator[bytes]) -> None:
        for line in pull_log.lines(stream):
            take(cache, line)

    threads = [
        threading.Thread(target=read, args=(cache, stream), daemon=True)
        for cache in caches.values()
        for stream in streams(client, cache, follow=True, tail=tail)
    ]
    for thread in threads:
        thread.start()
    return threads


def lines(client: DockerClient, cache: Cache) -> Iterator[str]:
    """The lines of a cache's log; those of a service's nodes one after the other."""
    return itertools.chain.from_iterable(map(pull_log.lines, streams(client, cache)))


def streams(
    client: DockerClient, cache: Cache, *, follow: bool = False, tail: int | str = "all"
) -> list[Iterator[bytes]]:
    """The output of a cache, or of a service on each of its nodes, in pieces.

    A cache with a front has the output of the front.
    """
    if cache.is_service:
        running = services.tasks(client, cache.name)
        return [services.logs(client, task["ID"], follow=follow, tail=tail) for task in running]
    return [output(client, cache.name, follow=follow, tail=tail)]


def output(
    client: DockerClient, name: str, *, follow: bool = False, tail: int | str = "all"
) -> Iterator[bytes]:
    """The output of a container, in pieces."""
    # Its types do not allow a variable for `follow`.
    container: Any = client.containers.get(name)
    return iter(container.logs(stream=True, follow=follow, tail=tail))


def _show(cache: Cache, line: str, caches: Mapping[str, Cache]) -> None:
    if _is_health_check(line):
        return
    name = f"{cache.registry}: " if len(caches) > 1 else ""
    console.out.print(f"{name}{line}", markup=False)


def _is_health_check(line: str) -> bool:
    return any(sign in line for sign in HEALTH_CHECK)
