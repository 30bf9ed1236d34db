"""cachectl remove: remove images, and the content that no other image needs."""

from collections.abc import Mapping
from typing import Annotated

import typer
from docker import DockerClient

from talos_registry_cache.cli import caches, console, options, selection, stack
from talos_registry_cache.cli.errors import ExitCode, UsageError
from talos_registry_cache.cli.stack import Cache, Stack
from talos_registry_cache.engine.pruning import Pruner
from talos_registry_cache.registry import retention
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.retention import Chosen, Pruning, Untagged

References = tuple[Reference, ...]


def remove(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE", help="Images, such as localhost:5010/app:dev; or repositories."
        ),
    ] = None,
    *,
    untagged: Annotated[
        bool,
        typer.Option(
            "--untagged",
            help="All images without a tag in the local registry, or in these repositories of it.",
        ),
    ] = False,
    yes: options.Yes = False,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove images from the caches, and the content that no other image needs.

    IMAGE is a tag, or a digest with all of its tags. Content that a remaining image of the cache
    needs stays. A cache fetches the image again when a client asks for it; an image in the
    local registry (`caches.local`) is gone.

    `--untagged` removes the images of the local registry that have no tag, because their tag was
    pushed again: those of the repositories that are given, such as localhost:5010/app, or all. The
    platforms of a tagged image, its attachments and its referrers stay. An image that nodes pull by
    its digest only is removed as well.

    Without `--yes`, this only shows what it would remove. With it, each cache is stopped while its
    images are removed; on a Swarm, its nodes restart afterwards, one by one. For example:

        cachectl remove localhost:5010/app:dev --yes

        cachectl remove --untagged

    Exit codes: 0 removed or shown, 1 failure, 2 wrong usage, 3 an image or a repository is not
    stored; nothing was removed.
    """
    named = selection.repositories(images or []) if untagged else selection.gather(images or [], [])
    if not named and not untagged:
        raise UsageError("no image to remove: give IMAGE or --untagged")
    with stack.opened(stack_name) as found:
        wanted = _local(found, named) if untagged else _of_images(found, named)
        with caches.locked(found):
            pruners = {
                registry: _pruner(found.engine, cache, named, untagged=untagged)
                for registry, cache in wanted.items()
            }
            planned = {registry: one.plan().pruning for registry, one in pruners.items()}
            missing = _missing(named, planned, pruners)
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


def _of_images(found: Stack, named: References) -> Mapping[str, Cache]:
    return found.only(dict.fromkeys(reference.registry for reference in named))


def _local(found: Stack, named: References) -> Mapping[str, Cache]:
    """The local registry, by its host.

    Raises:
        UsageError: the stack has none, or a repository is not in it.
    """
    local = {registry: cache for registry, cache in found.caches.items() if cache.is_local}
    if not local:
        raise UsageError(
            f"the stack {found.name} has no local registry (caches.local), and the images without "
            "a tag in its caches were pulled by digest; to remove these, use cachectl prune"
        )
    if others := [reference for reference in named if reference.registry not in local]:
        raise UsageError(
            f"{others[0]} is not in the local registry, {', '.join(local)}, and --untagged is for "
            "images that were pushed"
        )
    return local


def _pruner(client: DockerClient, cache: Cache, named: References, *, untagged: bool) -> Pruner:
    own = [reference for reference in named if reference.registry == cache.registry]
    policy = Untagged([one.repository for one in own]) if untagged else Chosen(own)
    return Pruner(client, cache.process, caches.storage_of(client, cache), policy)


def _missing(
    named: References, planned: Mapping[str, Pruning], pruners: Mapping[str, Pruner]
) -> list[Reference]:
    return [
        one for one in named if not _is_stored(one, planned[one.registry], pruners[one.registry])
    ]


def _is_stored(named: Reference, planned: Pruning, pruner: Pruner) -> bool:
    """Whether an image, or a repository, is stored."""
    if named.tag or named.digest:
        return any(retention.names(named, image) for image in planned.images)
    without_tag = {image.repository for image in planned.images}
    with_tag = {repository for repository, _ in pruner.storage.tags()}
    return named.repository in without_tag | with_tag


def _show(planned: Mapping[str, Pruning], *, yes: bool) -> None:
    rows = [(registry, str(one)) for registry, own in planned.items() for one in own.images]
    if rows:
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
