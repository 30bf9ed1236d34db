"""cachectl scrub: find damaged content in the storages, and remove it."""

from typing import Annotated

import typer
from docker import DockerClient

from talos_registry_cache.cli import caches, console, options, stack
from talos_registry_cache.cli.errors import ExitCode
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.engine import cache_storage, processes
from talos_registry_cache.registry import layout
from talos_registry_cache.registry.layout import Damage


def scrub(
    *,
    upstreams: options.Upstreams = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Remove damaged content, so that the next pull fetches it again."
        ),
    ] = False,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Read everything in the storages, and name content that is damaged or lost.

    Unlike `verify`, this does not look at images: it finds every damaged byte, but no layer that
    was never fetched. Content that looks damaged is read again before it is reported, because a
    pull may just have written it. The caches keep serving. With `--repair`, a damaged cache is
    stopped while content is removed; on a Swarm, its nodes restart afterwards, one by one.

    Exit codes: 0 nothing is damaged, or everything damaged was removed, 1 failure, 2 wrong usage,
    3 something is damaged.
    """
    with stack.opened(stack_name) as found:
        wanted = found.only(upstreams or [])
        with caches.locked(found):
            damages = {
                registry: _scrub(found.engine, cache, repair=repair)
                for registry, cache in wanted.items()
            }
    if as_json:
        console.as_json(
            [
                _described(registry, damage, repaired=repair)
                for registry, some in damages.items()
                for damage in some
            ]
        )
    else:
        _show(damages, repaired=repair)
    if any(damages.values()) and not repair:
        raise typer.Exit(ExitCode.NOT_ALL_THERE)


def _scrub(client: DockerClient, cache: Cache, *, repair: bool) -> list[Damage]:
    storage = caches.storage_of(client, cache)
    with console.meter(f"scrubbing {cache.registry}") as meter:
        stored = storage.read(lambda _digest, _size, piece: meter.add(len(piece)))
    damages = cache_storage.confirmed(storage, list(layout.damages(stored)))
    if damages and repair:
        with processes.forgetting(client, cache.process):
            return cache_storage.remove_damaged(storage, damages)
    return damages


def _show(damages: dict[str, list[Damage]], *, repaired: bool) -> None:
    found = sum(map(len, damages.values()))
    if found:
        console.table(
            ("upstream", "content", "problem", "repositories"),
            (
                (registry, damage.digest or "", damage.problem, " ".join(damage.repositories))
                for registry, some in damages.items()
                for damage in some
            ),
        )
    if not found:
        console.say("nothing is damaged")
    elif repaired:
        console.say(f"{found} removed; the next pull or `cachectl warm` fetches it again")
    else:
        console.say(f"{found} damaged; `cachectl scrub --repair` removes it")


def _described(registry: str, damage: Damage, *, repaired: bool) -> dict[str, object]:
    return {
        "upstream": registry,
        "digest": damage.digest,
        "problem": damage.problem,
        "repositories": damage.repositories,
        "repaired": repaired,
    }
