"""cachectl remove: remove images, and the content that no other image needs."""

from collections.abc import Mapping
from typing import Annotated

import typer
from docker import DockerClient

from talos_registry_cache.cli import caches, console, options, selection, stack
from talos_registry_cache.cli.errors import ExitCode
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.engine.pruning import Pruner
from talos_registry_cache.registry import retention
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.retention import Chosen, Pruning


def remove(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Images, such as localhost:5010/app:dev."),
    ],
    *,
    yes: options.Yes = False,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove images from the caches, and the content that no other image needs.

    IMAGE is a tag, or a digest with all of its tags. Content that a remaining image of the cache
    needs stays. A cache fetches the image again when a client asks for it; an image in the
    local registry (`caches.local`) is gone.

    Without `--yes`, this only shows what it would remove. With it, each cache is stopped while its
    images are removed; on a Swarm, its nodes restart afterwards, one by one. For example:

        cachectl remove localhost:5010/app:dev --yes

    Exit codes: 0 removed or shown, 1 failure, 2 wrong usage, 3 an image is not stored; nothing was
    removed.
    """
    references = selection.gather(images, [])
    with stack.opened(stack_name) as found:
        wanted = found.only(dict.fromkeys(reference.registry for reference in references))
        with caches.locked(found):
            pruners = {
                registry: _pruner(found.engine, cache, references)
                for registry, cache in wanted.items()
            }
            planned = {registry: one.plan().pruning for registry, one in pruners.items()}
            missing = _missing(references, planned)
            if yes and not missing:
                planned = {registry: one.prune().pruning for registry, one in pruners.items()}
    if missing:
        stored = "is not stored" if len(missing) == 1 else "are not stored"
        console.say(f"{', '.join(map(str, missing))} {stored}; nothing was removed")
        raise typer.Exit(ExitCode.NOT_ALL_THERE)
    if as_json:
        console.as_json({registry: _described(one) for registry, one in planned.items()})
    else:
        _show(planned, yes=yes)


def _pruner(client: DockerClient, cache: Cache, references: tuple[Reference, ...]) -> Pruner:
    own = [reference for reference in references if reference.registry == cache.registry]
    return Pruner(client, cache.process, caches.storage_of(client, cache), Chosen(own))


def _missing(references: tuple[Reference, ...], planned: Mapping[str, Pruning]) -> list[Reference]:
    return [
        reference
        for reference in references
        if not any(retention.names(reference, one) for one in planned[reference.registry].images)
    ]


def _show(planned: Mapping[str, Pruning], *, yes: bool) -> None:
    rows = [(registry, str(one)) for registry, own in planned.items() for one in own.images]
    console.table(("registry", "image"), rows)
    freed = console.size(sum(one.freed for one in planned.values()))
    images = console.count(len(rows), "image")
    done = f"removed {images}, {freed}"
    console.say(done if yes else f"would remove {images}, {freed}; run it with --yes")


def _described(pruning: Pruning) -> dict[str, object]:
    return {
        "images": [{"image": str(one), "digest": one.digest} for one in pruning.images],
        "blobs": list(pruning.blobs),
        "freed": pruning.freed,
    }
