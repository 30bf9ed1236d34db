"""cachectl list: show the stored images."""

import time
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer
from docker import DockerClient

from talos_registry_cache.cli import caches, console, options, stack
from talos_registry_cache.cli.commands import logs
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.registry import listing, reference, retention
from talos_registry_cache.registry.listing import Contents, Listed
from talos_registry_cache.registry.retention import NO_REQUESTS


class Format(StrEnum):
    """The forms of the list."""

    TABLE = "table"
    REFERENCES = "references"


def list_(
    upstreams: Annotated[
        list[str] | None,
        typer.Argument(metavar="UPSTREAM", help="Only these caches, such as docker.io."),
    ] = None,
    *,
    form: Annotated[
        Format, typer.Option("--format", "-f", help="A table, or one reference per line.")
    ] = Format.TABLE,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """List the images in the caches, with their platforms, sizes and last requests.

    The platforms are those that are stored completely, with every manifest and blob; an image
    without one is not complete, or not an image for containers. The last request is the one that
    `cachectl prune` uses. Attachments, such as signatures, are counted with their image. Images
    that share layers take less room on the disk than their sizes add up to.

    `--format references` prints what `images.file` in a stack file and `--images` read:

        cachectl list --format references > images.txt

    Layers are not read, and the caches keep serving; `cachectl verify` proves images.

    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    if as_json and form is Format.REFERENCES:
        raise UsageError("--json cannot be combined with --format references")
    with stack.opened(stack_name) as found:
        wanted = list(found.only(upstreams or []).values())
        lists = caches.at_once(found.engine, lambda cache: _listed(found.engine, cache), wanted)
    by_registry = {cache.registry: one for cache, one in zip(wanted, lists, strict=True)}
    if as_json:
        console.as_json(
            {
                registry: [_described(registry, one) for one in images]
                for registry, images in by_registry.items()
            }
        )
    elif form is Format.REFERENCES:
        for line in sorted(_references(by_registry)):
            typer.echo(line)
    else:
        _show(by_registry)


def _listed(client: DockerClient, cache: Cache) -> Sequence[Listed]:
    contents = Contents()
    stored = caches.storage_of(client, cache).read(contents.take, trusting=True)
    log = logs.lines(client, cache) if cache.has_front else None
    requests = NO_REQUESTS if log is None else retention.last_requests(log)
    return listing.listed(stored, contents, requests)


def _references(by_registry: Mapping[str, Sequence[Listed]]) -> Iterator[str]:
    """The images, without attachments: those belong to images, and are none."""
    for registry, images in by_registry.items():
        yield from (str(one.image.reference(registry)) for one in images if one.subject is None)


def _show(by_registry: Mapping[str, Sequence[Listed]]) -> None:
    rows = [
        (
            str(one.image.reference(registry)),
            reference.short(one.image.digest),
            ", ".join(one.platforms) or "-",
            console.size(one.size),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one.image.last_request)),
            ", ".join(console.count(number, kind) for kind, number in one.attachments.items()),
        )
        for registry, images in by_registry.items()
        for one in images
    ]
    if not rows:
        console.say("the caches are empty")
        return
    columns = ("image", "digest", "platforms", ">size", "last request", "attachments")
    console.table(columns, rows)


def _described(registry: str, one: Listed) -> dict[str, object]:
    return {
        "image": str(one.image.reference(registry)),
        "digest": one.image.digest,
        "platforms": list(one.platforms),
        "size": one.size,
        "lastRequest": one.image.last_request,
        "attachments": dict(one.attachments),
        "subject": one.subject,
    }
