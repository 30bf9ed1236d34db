"""cachectl logs: show the logs of the caches."""

import itertools
import threading
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from docker import DockerClient

from talos_registry_cache.cli import console, options, stack
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.engine import services

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

    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    with stack.opened(stack_name) as found:
        caches = found.only(upstreams or [])
        if follow:
            _follow(found.engine, caches, tail)
            return
        for cache in caches.values():
            # All of the log, because health checks do not count. The stack's settings bound it.
            printed = b"".join(itertools.chain(*streams(found.engine, cache)))
            lines = [
                line
                for line in printed.decode(errors="replace").splitlines()
                if not _is_health_check(line)
            ]
            for line in lines[max(0, len(lines) - tail) :]:
                _print(cache, line, caches)


def _follow(client: DockerClient, caches: Mapping[str, Cache], tail: int) -> None:
    """Show new lines of all caches. Ctrl-C ends the process, and with it these threads."""

    def follow(cache: Cache, stream: Iterator[bytes]) -> None:
        rest = b""
        for piece in stream:
            *lines, rest = (rest + piece).split(b"\n")
            for line in (line.decode(errors="replace") for line in lines):
                if not _is_health_check(line):
                    _print(cache, line, caches)

    threads = [
        threading.Thread(target=follow, args=(cache, stream), daemon=True)
        for cache in caches.values()
        for stream in streams(client, cache, follow=True, tail=tail)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def streams(
    client: DockerClient, cache: Cache, *, follow: bool = False, tail: int | str = "all"
) -> list[Iterator[bytes]]:
    """The output of a cache, or of a service on each of its nodes, in pieces."""
    if cache.is_service:
        running = services.tasks(client, cache.name)
        return [services.logs(client, task["ID"], follow=follow, tail=tail) for task in running]
    # Its types do not allow a variable for `follow`.
    container: Any = client.containers.get(cache.name)
    return [iter(container.logs(stream=True, follow=follow, tail=tail))]


def _print(cache: Cache, line: str, caches: Mapping[str, Cache]) -> None:
    name = f"{cache.registry}: " if len(caches) > 1 else ""
    console.out.print(f"{name}{line}", markup=False)


def _is_health_check(line: str) -> bool:
    return any(sign in line for sign in HEALTH_CHECK)
