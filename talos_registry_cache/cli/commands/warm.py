"""cachectl warm: fetch images into the caches before a node pulls them."""

import typer

from talos_registry_cache.cli import caches, console, options, selection, stack
from talos_registry_cache.cli.errors import ExitCode, UsageError
from talos_registry_cache.cli.selection import Cluster
from talos_registry_cache.registry import interruptible
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.warm import NotWarmed, Warmed, indexes_of
from talos_registry_cache.registry.warm import warm as warm_images


def warm(
    images: options.Images = None,
    *,
    image_files: options.ImageFiles = None,
    talos_version: options.TalosVersion = None,
    kubernetes_version: options.KubernetesVersion = None,
    schematic: options.Schematic = None,
    platforms: options.Platforms = None,
    attachments: options.WantedAttachments = Attachments.SIGNATURES,
    username: options.Username = None,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Fetch images into the caches, each blob once, before a node pulls them.

    Blobs that the caches already hold are not fetched again. If an image fails, the others are
    fetched all the same, and the next run continues where this one ended. Attachments are what the
    upstream has under the tags of cosign, and what its referrers API lists.

    `--platform all` fetches everything that the indexes of the images name, attestations included.
    An image must be available for each platform that is named.

    Exit codes: 0 the caches hold every image, 1 failure, 2 wrong usage, 3 some images could not be
    fetched; each is named with the reason.
    """
    cluster = Cluster(talos_version, kubernetes_version, schematic)
    references = selection.gather(images or [], image_files or [], cluster)
    if not references:
        raise UsageError("no image to warm: give IMAGE, --images FILE or --talos-version")
    reader = options.reader(username)
    with stack.opened(stack_name) as found:
        wanted = caches.wanted_platforms(found.engine, platforms)
        involved = caches.of_images(found.caches, references)
        with (
            caches.locked(found),
            caches.mounting(found.engine, involved) as storages,
            console.meter("warming") as meter,
        ):
            outcomes = interruptible.run(
                warm_images(
                    references,
                    found.endpoints(reader),
                    wanted,
                    attach=attachments,
                    storages=storages,
                    remotes=caches.asked_for_referrers(found.engine, involved, attachments),
                    on_progress=lambda progress: meter.show(progress.done, progress.total),
                    on_problem=console.say,
                )
            )
            caches.add_indexes(found, indexes_of(outcomes))
        again = stack.find(found.engine, found.name).only(cache.registry for cache in involved)
    if as_json:
        console.as_json([_described(outcome) for outcome in outcomes])
    else:
        _show(outcomes)
    if any(isinstance(outcome, NotWarmed) for outcome in outcomes):
        for cache in again.values():
            if cache.trouble:
                console.say(f"{cache.registry}: {cache.trouble}")
        raise typer.Exit(ExitCode.NOT_ALL_THERE)


def _show(outcomes: tuple[Warmed | NotWarmed, ...]) -> None:
    console.table(
        ("image", "result", ">size", ">fetched"),
        (
            (str(outcome.reference), "failed", "", "")
            if isinstance(outcome, NotWarmed)
            else (
                str(outcome.reference),
                "cached" if outcome.fetched == 0 else "fetched",
                console.size(outcome.image.size),
                console.size(outcome.fetched),
            )
            for outcome in outcomes
        ),
    )
    for outcome in outcomes:
        if isinstance(outcome, NotWarmed):
            for error in outcome.errors:
                console.say(f"{outcome.reference}: {error}")


def _described(outcome: Warmed | NotWarmed) -> dict[str, object]:
    if isinstance(outcome, NotWarmed):
        return {"image": str(outcome.reference), "errors": [str(error) for error in outcome.errors]}
    return {
        "image": str(outcome.reference),
        "digest": outcome.image.digest,
        "attachments": [one.reference.tag for one in outcome.attachments],
        "size": outcome.image.size,
        "fetched": outcome.fetched,
        "errors": [],
    }
