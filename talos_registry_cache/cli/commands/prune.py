"""cachectl prune: remove images that are no longer needed."""

import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

import typer
from docker import DockerClient

from talos_registry_cache.cli import caches, console, options, selection, stack
from talos_registry_cache.cli.commands import logs
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.engine.pruning import Pruned, Pruner
from talos_registry_cache.registry import retention
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.retention import NO_REQUESTS, Policy, Requests

BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def prune(
    *,
    keep: Annotated[
        list[Path] | None,
        typer.Option(
            "--keep", metavar="FILE", help="A list of images to keep, one per line. Repeatable."
        ),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Remove images not requested for this long, such as 720h."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Remove the oldest images down to this size for each cache, such as 20g.",
        ),
    ] = None,
    uploads: Annotated[
        bool,
        typer.Option("--uploads", help="Remove incomplete uploads only."),
    ] = False,
    yes: options.Yes = False,
    upstreams: options.Upstreams = None,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove images, and the content that no other image needs.

    With `--keep` alone, images that no list names are removed. With `--older-than` or `--size`,
    images that were not requested for that long, or do not fit, are removed, except those that a
    list names. The last request is the last one in the log of the cache's front, or the last time
    that a tag was looked up while the upstream answered, whichever is newer. Incomplete uploads are
    removed after a day.

    Without `--yes`, this only shows what it would remove. With it, each cache is stopped while its
    images are removed; on a Swarm, its nodes restart afterwards, one by one. Images in the local
    registry (`caches.local`) cannot be fetched again, and are left out unless `--upstream` names
    it. For example:

        cachectl prune --older-than 720h --keep images.txt --yes

    Exit codes: 0 removed or shown, 1 failure, 2 wrong usage.
    """
    lists = [selection.from_file(path) for path in keep or []]
    of_images = bool(lists) or older_than is not None or size is not None
    if not of_images and not uploads:
        raise UsageError("no filter: give --keep FILE, --older-than AGE, --size SIZE or --uploads")
    if of_images and uploads:
        raise UsageError("--uploads cannot be combined with image filters")
    kept = [reference for listed in lists for reference in listed]
    oldest = None if older_than is None else time.time() - seconds(older_than)
    most = None if size is None else number_of_bytes(size)
    with stack.opened(stack_name) as found:
        wanted = found.only(upstreams or _of_upstreams(found))
        with caches.locked(found):
            pruned = {}
            for registry, cache in wanted.items():
                policy = Policy(_own(registry, kept), oldest, most) if of_images else None
                pruned[registry] = _prune(found.engine, cache, policy, yes=yes)
    if as_json:
        console.as_json({registry: _described(one) for registry, one in pruned.items()})
    else:
        _show(pruned, yes=yes)


def seconds(text: str) -> int:
    """Parse an age such as 720h or 30d.

    Raises:
        UsageError: the text is not an age.
    """
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if not match:
        raise UsageError(
            f"{text!r} is not an age; allowed: a number and s, m, h or d, such as 720h"
        )
    return int(match[1]) * SECONDS[match[2]]


def number_of_bytes(text: str) -> int:
    """Parse a size such as 20g; units are powers of 1000.

    Raises:
        UsageError: the text is not a size.
    """
    match = re.fullmatch(r"(\d{1,12})([kmgt]?)b?", text.lower())
    if not match:
        raise UsageError(f"{text!r} is not a size; allowed: a number and k, m, g or t, such as 20g")
    return int(match[1]) * BYTES[match[2]]


def _of_upstreams(found: stack.Stack) -> list[str]:
    return [registry for registry, cache in found.caches.items() if not cache.is_local]


def _prune(client: DockerClient, cache: Cache, policy: Policy | None, *, yes: bool) -> Pruned:
    with console.meter(f"reading {cache.registry}") as meter:
        pruner = Pruner(
            client,
            cache.process,
            caches.storage_of(client, cache),
            policy,
            lambda: _requests(client, cache),
            lambda _digest, _size, piece: meter.add(len(piece)),
        )
        return pruner.prune() if yes else pruner.plan()


def _requests(client: DockerClient, cache: Cache) -> Requests:
    if not cache.has_front:
        return NO_REQUESTS
    return retention.last_requests(logs.lines(client, cache))


def _own(registry: str, references: Collection[Reference]) -> list[Reference]:
    return [reference for reference in references if reference.registry == registry]


def _show(pruned: Mapping[str, Pruned], *, yes: bool) -> None:
    rows = [
        (registry, str(image), time.strftime("%Y-%m-%d %H:%M", time.localtime(image.last_request)))
        for registry, one in pruned.items()
        for image in one.pruning.images
    ]
    if rows:
        console.table(("registry", "image", "last request"), rows)
    freed = console.size(sum(one.pruning.freed for one in pruned.values()))
    uploads = [upload for one in pruned.values() for upload in one.uploads]
    if uploads:
        left = console.size(sum(upload.size for upload in uploads))
        does = "removed" if yes else "would remove"
        console.say(f"{does} {console.count(len(uploads), 'incomplete upload')}, {left}")
    images = console.count(len(rows), "image")
    done = f"removed {images}, {freed}"
    shown = f"would remove {images}, {freed}; run it with --yes"
    console.say(done if yes else shown)


def _described(pruned: Pruned) -> dict[str, object]:
    pruning = pruned.pruning
    return {
        "images": [
            {"image": str(image), "digest": image.digest, "lastRequest": image.last_request}
            for image in pruning.images
        ],
        "blobs": list(pruning.blobs),
        "freed": pruning.freed,
        "uploads": [
            {"path": upload.path, "size": upload.size, "modified": upload.modified}
            for upload in pruned.uploads
        ],
    }
