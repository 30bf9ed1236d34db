"""cachectl logs: show the logs of the caches."""

from collections import deque
from collections.abc import Mapping
from typing import Annotated

import typer

from talos_registry_cache.cli import console, log_lines, options, stack
from talos_registry_cache.cli.stack import Cache


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
            for one in log_lines.follow(found.engine, caches, tail):
                if one:
                    _print(*one, caches)
            return
        for cache in caches.values():
            # All of the log, because health checks do not count. The stack's settings bound it.
            for line in deque(log_lines.read(found.engine, cache), maxlen=tail):
                _print(cache, line, caches)


def _print(cache: Cache, line: str, caches: Mapping[str, Cache]) -> None:
    name = f"{cache.registry}: " if len(caches) > 1 else ""
    console.out.print(f"{name}{line}", markup=False)
