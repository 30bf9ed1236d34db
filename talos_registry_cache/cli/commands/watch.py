"""cachectl watch: show pulls as they happen."""

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import typer
from docker import DockerClient
from rich.live import Live

from talos_registry_cache.cli import console, log_lines, options, pull_log, stack
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.pull_log import Pull
from talos_registry_cache.cli.pulls import Pulls, Total
from talos_registry_cache.cli.stack import Cache

REDRAWN_EVERY_S = 0.5
COLUMNS = ("image", "client", ">hits", ">shared", ">stale", ">misses", ">failed", ">bytes")
RESULTS = ("hit", "shared", "stale", "miss", "failed")


def watch(
    upstreams: Annotated[
        list[str] | None,
        typer.Argument(metavar="UPSTREAM", help="Only these caches, such as docker.io."),
    ] = None,
    *,
    tail: Annotated[
        int,
        typer.Option("--tail", "-n", min=0, help="How many earlier lines of each log to count."),
    ] = 0,
    stack_name: options.StackName = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object for each request, on one line.")
    ] = False,
) -> None:
    """Show pulls as they happen, by image and client, until Ctrl-C.

    Needs caches with a front (`caches.front` in the stack file). A *hit* is stored, or a tag that
    is still fresh. *Shared* means that the blob was fetched for another client as well. *Stale* is
    a tag that the front remembers while it asks the upstream again. For a *miss*, the registry was
    asked. Without a terminal, each request is a line.

    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    with stack.opened(stack_name) as found:
        caches = found.only(upstreams or [])
        if without := [host for host, cache in caches.items() if not cache.has_front]:
            raise UsageError(
                f"the cache of {without[0]} has no front, so it does not log what was cached; "
                "set caches.front in the stack file"
            )
        try:
            if as_json or not console.out.is_terminal:
                _print(found.engine, caches, tail, as_json=as_json)
            else:
                _show(found.engine, caches, tail)
        except KeyboardInterrupt:
            return


def _print(client: DockerClient, caches: Mapping[str, Cache], tail: int, *, as_json: bool) -> None:
    for one in log_lines.follow(client, caches, tail):
        if one and (pull := pull_log.parse(one[1])):
            registry = one[0].registry
            if as_json:
                console.as_json_line({"registry": registry, **_described(pull)})
            else:
                console.out.print(_line(registry, pull), markup=False)
            sys.stdout.flush()


def _show(client: DockerClient, caches: Mapping[str, Cache], tail: int) -> None:
    pulls, started, drawn = Pulls(), time.monotonic(), 0.0
    with Live(console=console.out, auto_refresh=False) as live:
        for one in log_lines.follow(client, caches, tail):
            if one and (pull := pull_log.parse(one[1])):
                pulls.add(one[0].registry, pull)
            now = time.monotonic()
            if now - drawn >= REDRAWN_EVERY_S:
                drawn = now
                live.update(console.made_table(COLUMNS, _rows(pulls, now - started)), refresh=True)


def _rows(pulls: Pulls, seconds: float) -> list[tuple[str, ...]]:
    rate = f"{console.size(int(pulls.total.size / max(seconds, 1)))}/s"
    return [
        *(_row(image, client, total) for (image, client), total in sorted(pulls.by_image.items())),
        _row("total", rate, pulls.total),
    ]


def _row(image: str, client: str, total: Total) -> tuple[str, ...]:
    numbers = (str(total.results[result]) for result in RESULTS)
    return (image, client, *numbers, console.size(total.size))


def _described(pull: Pull) -> dict[str, object]:
    return {**asdict(pull), "time": pull.time.isoformat()}


def _line(registry: str, pull: Pull) -> str:
    what = f"{registry}/{pull.repository}{'@' if ':' in pull.target else ':'}{pull.target}"
    took = f"{console.size(pull.size)} in {pull.seconds:.1f} s"
    return f"{pull.client} {pull.method} {what}: {pull.result}, {pull.status}, {took}"
