"""cachectl prune: images that nobody needs any more make room."""

import re
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from docker import DockerClient

from cachectl import caches, console, options, selection, stack
from cachectl.errors import UsageError
from cachectl.stack import Cache
from registry import retention, storage, volume
from registry.reference import Reference
from registry.retention import Pruning, StoredImage
from registry.storage import Storage

Choose = Callable[[Storage], list[StoredImage]]

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


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
    yes: options.Yes = False,
    upstreams: options.Upstreams = None,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Give up stored images, and remove all content that no other image needs.

    With `--keep` alone, what no list names goes. With `--older-than` or `--size`, what is older
    or too much goes, and what a list names stays. An image counts as asked for when its tag was
    last looked up while the upstream answered. Without `--yes` nothing is touched; with it each
    cache is stopped while its images are removed.

    Exit codes: 0 pruned or shown, 1 it could not be done, 2 wrong usage.
    """
    lists = [selection.from_file(path) for path in keep or []]
    if not lists and older_than is None and size is None:
        raise UsageError("say what may go: by --keep FILE, --older-than AGE or --size SIZE")
    kept = selection.references([text for texts in lists for text in texts])
    oldest = None if older_than is None else time.time() - seconds(older_than)
    most = None if size is None else number_of_bytes(size)
    with stack.engine() as client:
        found = stack.find(client, stack_name)
        wanted = found.only(upstreams or [])
        with caches.alone(found):
            pruned = {
                registry: _prune(client, cache, _choice(registry, kept, oldest, most), yes=yes)
                for registry, cache in wanted.items()
            }
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


def _prune(client: DockerClient, cache: Cache, choose: Choose, *, yes: bool) -> Pruning:
    with ExitStack() as until_done:
        mounted = until_done.enter_context(volume.mounted(client, cache.volume, cache.image))
        if yes:
            # Before it is read: what is fetched meanwhile might be taken for what nobody needs.
            until_done.enter_context(stack.stopped(client, cache))
        with console.meter(f"reading {cache.registry}") as meter, mounted.tar() as tar:
            stored = storage.read(tar, lambda _digest, _size, piece: meter.add(len(piece)))
        pruning = retention.prune(stored, choose(stored))
        if yes:
            mounted.remove(pruning.folders)
    return pruning


def _show(pruned: dict[str, Pruning], *, yes: bool) -> None:
    rows = [
        (registry, str(image), time.strftime("%Y-%m-%d %H:%M", time.localtime(image.asked)))
        for registry, one in pruned.items()
        for image in one.images
    ]
    if rows:
        console.table(("registry", "image", "asked for"), rows)
    freed = console.size(sum(one.freed for one in pruned.values()))
    done = f"{len(rows)} images removed, {freed} freed"
    shown = f"{len(rows)} images and {freed} would go; do it by --yes"
    console.say(done if yes else shown)


def _described(pruning: Pruning) -> dict[str, object]:
    return {
        "images": [
            {"image": str(image), "digest": image.digest, "asked": image.asked}
            for image in pruning.images
        ],
        "blobs": pruning.blobs,
        "freed": pruning.freed,
    }
