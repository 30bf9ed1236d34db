"""cachectl prune: remove images that are no longer needed."""

import re
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from docker import DockerClient

from talos_registry_cache.cli import caches, console, options, selection, stack
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.engine import processes
from talos_registry_cache.engine.cache_storage import CacheStorage
from talos_registry_cache.registry import layout, retention
from talos_registry_cache.registry.layout import Storage, Upload
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.retention import Pruning, StoredImage

Choose = Callable[[Storage], list[StoredImage]]

NOTHING = Pruning((), {}, ())
# Longer than any upload takes.
LEFT_AFTER_S = 24 * 3600

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True, slots=True)
class _Pruned:
    """What was or would be removed from a cache.

    Attributes:
        pruning: images and content.
        uploads: incomplete uploads.
    """

    pruning: Pruning
    uploads: tuple[Upload, ...]


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
    images that are older or too much are removed, except those that a list names. An image counts
    as requested when its tag was last looked up while the upstream answered. Incomplete uploads
    are removed after a day.

    Without `--yes`, this only shows what it would remove. With it, each cache is stopped while its
    images are removed; on a Swarm, its nodes restart afterwards, one by one. For example:

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
        wanted = found.only(upstreams or [])
        with caches.locked(found):
            pruned = {}
            for registry, cache in wanted.items():
                choose = _choice(registry, kept, oldest, most) if of_images else None
                pruned[registry] = _prune(found.engine, cache, choose, yes=yes)
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


def _choice(
    registry: str, kept: Collection[Reference], oldest: float | None, most: int | None
) -> Choose:
    own = [reference for reference in kept if reference.registry == registry]

    def choose(stored: Storage) -> list[StoredImage]:
        images = retention.images(stored)
        named = {image for image in images if retention.wanted(image, own)}
        if oldest is None and most is None:
            return [image for image in images if image not in named]
        dropped = [
            image
            for image in images
            if oldest is not None and image.asked < oldest and image not in named
        ]
        if most is not None:
            too_much = retention.down_to(stored, most, named)
            dropped += [image for image in too_much if image not in dropped]
        return dropped

    return choose


def _prune(client: DockerClient, cache: Cache, choose: Choose | None, *, yes: bool) -> _Pruned:
    storage = caches.storage_of(client, cache)
    with ExitStack() as until_done:
        if yes and not cache.is_service:
            # Before it is read: new content might look unused.
            until_done.enter_context(processes.forgetting(client, cache.process))
        stored, pruning = _read(storage, cache, choose)
        if yes and pruning.folders and cache.is_service:
            # It keeps running, so only content that is unused in two readings is removed.
            _, again = _read(storage, cache, choose)
            pruning = retention.agreed(again, pruning)
        uploads = layout.left_behind(stored, time.time() - LEFT_AFTER_S)
        if yes and pruning.folders:
            if cache.is_service:
                until_done.enter_context(processes.forgetting(client, cache.process))
            storage.remove(pruning.folders)
        if yes and uploads:
            storage.remove_uploads(uploads)
    return _Pruned(pruning, uploads)


def _read(storage: CacheStorage, cache: Cache, choose: Choose | None) -> tuple[Storage, Pruning]:
    """Read a storage, and choose what to remove."""
    with console.meter(f"reading {cache.registry}") as meter:
        stored = storage.read(lambda _digest, _size, piece: meter.add(len(piece)), trusting=True)
    return stored, retention.prune(stored, choose(stored)) if choose else NOTHING


def _show(pruned: Mapping[str, _Pruned], *, yes: bool) -> None:
    rows = [
        (registry, str(image), time.strftime("%Y-%m-%d %H:%M", time.localtime(image.asked)))
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
        console.say(f"{does} {len(uploads)} incomplete uploads, {left}")
    done = f"removed {len(rows)} images, {freed}"
    shown = f"would remove {len(rows)} images, {freed}; run it with --yes"
    console.say(done if yes else shown)


def _described(pruned: _Pruned) -> dict[str, object]:
    pruning = pruned.pruning
    return {
        "images": [
            {"image": str(image), "digest": image.digest, "asked": image.asked}
            for image in pruning.images
        ],
        "blobs": list(pruning.blobs),
        "freed": pruning.freed,
        "uploads": [
            {"path": upload.path, "size": upload.size, "modified": upload.modified}
            for upload in pruned.uploads
        ],
    }
