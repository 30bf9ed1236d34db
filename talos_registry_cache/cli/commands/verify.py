"""cachectl verify: prove from the storage alone that images are complete."""

from pathlib import Path
from typing import Annotated

import typer

from talos_registry_cache.cli import caches, console, options, selection, stack
from talos_registry_cache.cli.errors import ExitCode
from talos_registry_cache.cli.selection import Cluster
from talos_registry_cache.registry import interruptible
from talos_registry_cache.registry.errors import SignatureError
from talos_registry_cache.registry.platforms import Platforms, names
from talos_registry_cache.registry.verify import Verified
from talos_registry_cache.registry.verify import verify as verify_images


def verify(
    images: options.Images = None,
    *,
    image_files: options.ImageFiles = None,
    talos_version: options.TalosVersion = None,
    kubernetes_version: options.KubernetesVersion = None,
    schematic: options.Schematic = None,
    platforms: options.Platforms = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The signatures that images need: an ImageVerificationConfig document of Talos, "
            "or a list of image patterns and key files.",
        ),
    ] = None,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Prove that the caches hold images completely and undamaged, without any upstream.

    Temporary registries serve the storages, read-only and without an upstream. Every manifest and
    blob is read, and its size and sha256 are checked. Without IMAGE, every stored tag is proved.
    Nodes can pull meanwhile: missing content is looked for again. Stored attachments of an image,
    such as signatures, are proved with it.

    With --policy, images also need the signature of a key, as nodes of Talos 1.14 check it.

    Without --platform, images are proved for the platform of the engine, also where the caches hold
    more. `--platform all` proves everything that the indexes of the images name.

    Exit codes: 0 every image is proved, 1 failure, 2 wrong usage, 3 something is missing,
    damaged or not signed; it is named.
    """
    cluster = Cluster(talos_version, kubernetes_version, schematic)
    references = selection.gather(images or [], image_files or [], cluster)
    rules = selection.policy(policy) if policy else None
    with stack.opened(stack_name) as found:
        wanted = caches.wanted_platforms(found.engine, platforms)
        with caches.locked(found):
            references = references or caches.stored_images(found)
            involved = caches.of_images(found.caches, references)
            with (
                caches.serving(found.engine, involved) as endpoints,
                console.meter("verifying") as meter,
            ):
                outcomes = interruptible.run(
                    verify_images(references, endpoints, wanted, policy=rules, on_bytes=meter.add)
                )
    if as_json:
        console.as_json([_described(outcome) for outcome in outcomes])
    else:
        _show(outcomes, wanted)
    if not outcomes or any(outcome.errors for outcome in outcomes):
        raise typer.Exit(ExitCode.NOT_ALL_THERE)


def _show(outcomes: tuple[Verified, ...], wanted: Platforms) -> None:
    if not outcomes:
        console.say("the caches are empty: nothing is proved")
        return
    console.table(
        ("image", "proof", ">size"),
        (
            (
                str(outcome.reference),
                _proof(outcome),
                console.size(outcome.image.size) if outcome.image else "",
            )
            for outcome in outcomes
        ),
    )
    for outcome in outcomes:
        for error in outcome.errors:
            console.say(f"{outcome.reference}: {error}")
    proved = sum(not outcome.errors for outcome in outcomes)
    console.say(f"{proved} of {len(outcomes)} images proved for {', '.join(names(wanted))}")


def _proof(outcome: Verified) -> str:
    if not outcome.errors:
        return "proved"
    if outcome.image is None:
        return "missing"
    unsigned = sum(isinstance(error, SignatureError) for error in outcome.errors)
    if unsigned == len(outcome.errors):
        return "not signed"
    parts = len(outcome.errors) - unsigned
    return f"{parts} parts missing or damaged"


def _described(outcome: Verified) -> dict[str, object]:
    return {
        "image": str(outcome.reference),
        "proved": not outcome.errors,
        "digest": outcome.image.digest if outcome.image else None,
        "size": outcome.image.size if outcome.image else None,
        "attachments": [one.reference.tag for one in outcome.attachments],
        "errors": [str(error) for error in outcome.errors],
    }
