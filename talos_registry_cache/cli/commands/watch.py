"""cachectl watch: show pulls as they happen."""

import queue
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated

import typer
from docker import DockerClient
from rich.live import Live

from talos_registry_cache.cli import console, options, stack
from talos_registry_cache.cli.commands import logs
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.pulled import FAILED, Pulled, Pulls
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.registry import pull_log
from talos_registry_cache.registry.pull_log import Kind, Pull, Result

EVERY_S = 0.25
# The lines of a terminal that are not for images: head, rules, total and the cursor.
FRAME_LINES = 6
COLUMNS = (
    "image", "client", ">hits", ">shared", ">stale", ">misses", ">failed", ">bytes", ">rate",
)  # fmt: skip
COUNTED = (Result.HIT, Result.SHARED, Result.STALE, Result.MISS, FAILED)


def watch(
    upstreams: Annotated[
        list[str] | None,
        typer.Argument(metavar="UPSTREAM", help="Only these caches, such as docker.io."),
    ] = None,
    *,
    tail: Annotated[
        int,
        typer.Option(
            "--tail", "-n", min=0, help="How many earlier requests of each cache to include."
        ),
    ] = 0,
    stack_name: options.StackName = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print each request as a JSON object on a line of its own."),
    ] = False,
) -> None:
    """Show pulls as they happen, for each image and client, until Ctrl-C.

    Requests are counted by where the answer came from: "hits" from the cache; "shared" from the
    fetch of another client, for which the request waited; "stale" from the cache, with a tag past
    its freshness; "misses" from the registry, which asked the upstream if it had to. "failed" got
    an error. A blob counts for the image of its repository whose manifest the client asked for
    last. The rate is measured from an image's first request to its last.

    Without a terminal, each request is a line as it happens, and the table comes at the end. A
    request appears once it is answered. Caches on some nodes of a Swarm (`placement.replicas`) have
    no fronts, and cannot be watched.

    Exit codes: 0 ended by Ctrl-C, or the fronts have stopped, 1 failure, 2 wrong usage.
    """
    with stack.opened(stack_name) as found:
        caches = found.only(upstreams or [])
        if without := [registry for registry, cache in caches.items() if not cache.has_front]:
            raise UsageError(
                f"the cache of {without[0]} has no front, whose log would show the pulls; "
                "with caches.placement.replicas, there is none"
            )
        seen = _requests(found.engine, caches, tail)
        try:
            if as_json:
                for cache, pull in filter(None, seen):
                    console.json_line(_described(cache, pull))
            else:
                _show(seen)
        except KeyboardInterrupt:
            # It is how this command ends.
            return


def _requests(
    client: DockerClient, caches: Mapping[str, Cache], tail: int
) -> Iterator[tuple[Cache, Pull] | None]:
    """The requests to caches as they happen; None whenever there was none for a moment."""
    waiting: queue.SimpleQueue[tuple[Cache, Pull]] = queue.SimpleQueue()

    def take(cache: Cache, line: str) -> None:
        if pull := pull_log.parse(line):
            waiting.put((cache, pull))

    threads = logs.start_following(client, caches, take, tail=tail)
    while True:
        # Before the queue: what a thread puts last is still taken.
        ended = not any(thread.is_alive() for thread in threads)
        try:
            yield waiting.get(timeout=0 if ended else EVERY_S)
        except queue.Empty:
            if ended:
                return
            yield None


def _show(seen: Iterator[tuple[Cache, Pull] | None]) -> None:
    pulls = Pulls()
    live = Live(console=console.out, auto_refresh=False, transient=True)
    is_live, due = console.out.is_terminal, 0.0
    try:
        with live if is_live else nullcontext():
            for one in seen:
                if one:
                    cache, pull = one
                    pulls.add(cache.registry, pull)
                    if not is_live and pull.kind is not Kind.OTHER:
                        console.out.print(_line(cache, pull), markup=False)
                if is_live and time.monotonic() >= due:
                    due = time.monotonic() + EVERY_S
                    most = max(1, console.out.height - FRAME_LINES)
                    live.update(console.rendered(COLUMNS, _rows(pulls, most)), refresh=True)
    finally:
        console.table(COLUMNS, _rows(pulls))


def _rows(pulls: Pulls, most: int | None = None) -> Iterator[tuple[str, ...]]:
    """The rows of the images that were pulled last, and that of the total."""
    for image, client, pulled in list(pulls.images())[:most]:
        yield image, client, *_cells(pulled)
    yield "total", "", *_cells(pulls.total)


def _cells(pulled: Pulled) -> tuple[str, ...]:
    counts = (str(pulled.requests[result]) for result in COUNTED)
    return *counts, console.size(pulled.size), f"{console.size(pulled.rate)}/s"


def _line(cache: Cache, pull: Pull) -> str:
    separator = "@" if ":" in pull.reference else ":"
    return (
        f"{pull.time.isoformat()} {pull.client} {pull.method} {pull.kind} "
        f"{cache.registry}/{pull.repository}{separator}{pull.reference} "
        f"{pull.status} {pull.result} {console.size(pull.size)} in {pull.seconds:.3f} s"
    )


def _described(cache: Cache, pull: Pull) -> dict[str, object]:
    described = asdict(pull)
    described["time"] = pull.time.isoformat()
    return {"registry": cache.registry, **described}
