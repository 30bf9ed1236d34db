"""cachectl scrub: all that is stored is read again, and what is damaged is removed on demand."""

from typing import Annotated

import typer
from docker import DockerClient

from talos_registry_cache.cli import caches, console, options, stack, staging
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
            "--repair", help="Remove what is damaged, so that the next pull fetches it again."
        ),
    ] = False,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Read all that is stored, compare it with its sha256, and name what is damaged or gone.

    Other than `verify`, it does not ask what an image consists of: it finds every damaged byte,
    but no layer that was never fetched. What looks damaged is read again before it counts: a pull
    may just have written it. The caches go on serving meanwhile; with `--repair` a
    damaged one is stopped for as long as the removal takes. One on a Swarm is not: its nodes start
    anew afterwards, one after the other.

    Exit codes: 0 nothing is damaged, or all of it was removed, 1 it could not be done, 2 wrong
    usage, 3 something is damaged.
    """
    with stack.engine() as client:
        found = stack.find(client, stack_name)
        wanted = found.only(upstreams or [])
        with staging.alone(client, found):
            damages = {
                registry: _scrub(client, cache, repair=repair) for registry, cache in wanted.items()
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
    held = caches.storage_of(client, cache)
    with console.meter(f"scrubbing {cache.registry}") as meter:
        stored = held.read(lambda _digest, _size, piece: meter.add(len(piece)))
    damages = cache_storage.confirmed(held, list(layout.damages(stored)))
    if damages and repair:
        with processes.forgetting(client, cache.name):
            return cache_storage.remove_damaged(held, damages)
    return damages


def _show(damages: dict[str, list[Damage]], *, repaired: bool) -> None:
    found = sum(map(len, damages.values()))
    if found:
        console.table(
            ("upstream", "content", "problem", "of"),
            (
                (registry, damage.digest or "", damage.problem, " ".join(damage.repositories))
                for registry, some in damages.items()
                for damage in some
            ),
        )
    if not found:
        console.say("all that is stored is as it was")
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
