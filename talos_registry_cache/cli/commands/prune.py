"""cachectl prune: images that nobody needs any more make room."""

import re
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from docker import DockerClient

from talos_registry_cache.cli import caches, console, options, selection, stack, staging
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
# Longer than any upload goes on that comes to an end.
LEFT_AFTER_S = 24 * 3600

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True, slots=True)
class _Pruned:
    """What a cache gave up, or would.

    Attributes:
        pruning: images and content.
        uploads: what was uploaded in part.
    """

    pruning: Pruning
    uploads: tuple[Upload, ...]


def prune(
    *,
    keep: Annotated[
        list[Path] | None,
        typer.Option("--keep", metavar="FILE", help="Images that stay, one a line; repeatable."),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Give up what nobody asked for that long, such as 720h."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Give up the oldest down to that, such as 20g, each."),
    ] = None,
    uploads: Annotated[
        bool,
        typer.Option("--uploads", help="Give up what was uploaded in part, and nothing else."),
    ] = False,
    yes: options.Yes = False,
    upstreams: options.Upstreams = None,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Give up stored images, and remove all content that no other image needs.

    What was uploaded in part, and that nobody went on with for a day, goes as well.

    With `--keep` alone, what no list names goes. With `--older-than` or `--size`, what is older
    or too much goes, and what a list names stays. An image counts as asked for when its tag was
    last looked up while the upstream answered. Without `--yes` nothing is touched; with it each
    cache is stopped while its images are removed. One on a Swarm is not: its nodes start anew
    afterwards, one after the other.

    Exit codes: 0 pruned or shown, 1 it could not be done, 2 wrong usage.
    """
    lists = [selection.from_file(path) for path in keep or []]
    of_images = bool(lists) or older_than is not None or size is not None
    if not of_images and not uploads:
        raise UsageError(
            "say what may go: by --keep FILE, --older-than AGE, --size SIZE or --uploads"
        )
    if of_images and uploads:
        raise UsageError("--uploads is about no image; allowed: it alone")
    kept = [reference for listed in lists for reference in listed]
    oldest = None if older_than is None else time.time() - seconds(older_than)
    most = None if size is None else number_of_bytes(size)
    with stack.engine() as client:
        found = stack.find(client, stack_name)
        wanted = found.only(upstreams or [])
        with staging.alone(client, found):
            pruned = {}
            for registry, cache in wanted.items():
                choose = _choice(registry, kept, oldest, most) if of_images else None
                pruned[registry] = _prune(client, cache, choose, yes=yes)
    if as_json:
        console.as_json({registry: _described(one) for registry, one in pruned.items()})
    else:
        _show(pruned, yes=yes)


def seconds(text: str) -> int:
    """Read an age such as 720h or 30d.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if not match:
        raise UsageError(f"{text!r} is no age; allowed: a number and s, m, h or d, such as 720h")
    return int(match[1]) * SECONDS[match[2]]


def number_of_bytes(text: str) -> int:
    """Read a size such as 20g; units are powers of 1000.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"(\d{1,12})([kmgt]?)b?", text.lower())
    if not match:
        raise UsageError(f"{text!r} is no size; allowed: a number and k, m, g or t, such as 20g")
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
    held = caches.storage_of(client, cache)
    with ExitStack() as until_done:
        if yes and not cache.is_service:
            # Before it is read: what is fetched meanwhile might be taken for what nobody needs.
            until_done.enter_context(processes.forgetting(client, cache.name))
        stored, pruning = _read(held, cache, choose)
        if yes and pruning.folders and cache.is_service:
            # It goes on, so that what counts is what another reading finds as well.
            _, again = _read(held, cache, choose)
            pruning = retention.agreed(again, pruning)
        uploads = layout.left_behind(stored, time.time() - LEFT_AFTER_S)
        if yes and pruning.folders:
            if cache.is_service:
                until_done.enter_context(processes.forgetting(client, cache.name))
            held.remove(pruning.folders)
        if yes and uploads:
            held.remove_uploads(uploads)
    return _Pruned(pruning, uploads)


def _read(held: CacheStorage, cache: Cache, choose: Choose | None) -> tuple[Storage, Pruning]:
    """What a cache has, and what of it goes."""
    with console.meter(f"reading {cache.registry}") as meter:
        stored = held.read(lambda _digest, _size, piece: meter.add(len(piece)), trusting=True)
    return stored, retention.prune(stored, choose(stored)) if choose else NOTHING


def _show(pruned: Mapping[str, _Pruned], *, yes: bool) -> None:
    rows = [
        (registry, str(image), time.strftime("%Y-%m-%d %H:%M", time.localtime(image.asked)))
        for registry, one in pruned.items()
        for image in one.pruning.images
    ]
    if rows:
        console.table(("registry", "image", "asked for"), rows)
    freed = console.size(sum(one.pruning.freed for one in pruned.values()))
    uploads = [upload for one in pruned.values() for upload in one.uploads]
    if uploads:
        left = console.size(sum(upload.size for upload in uploads))
        does = "removed" if yes else "would go"
        console.say(f"{len(uploads)} uploads that nobody ended, with {left}, {does}")
    done = f"{len(rows)} images removed, {freed} freed"
    shown = f"{len(rows)} images and {freed} would go; do it by --yes"
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
