"""cachectl import: what another machine has exported becomes part of the caches."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from docker import DockerClient

from talos_registry_cache.cli import console, options, stack, staging
from talos_registry_cache.cli.archive import Contents, Piece, Reader
from talos_registry_cache.cli.console import Meter
from talos_registry_cache.cli.errors import CachectlError, UsageError
from talos_registry_cache.cli.stack import Cache, Stack
from talos_registry_cache.engine import volume
from talos_registry_cache.registry.s3_location import S3Location


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive of `cachectl export`.")],
    *,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Add what an archive has to the caches; no network is needed.

    The archive is read once: all of it is checked and written beside what the caches store, and
    becomes part of that only when it has turned out to be complete and unchanged. Until then an
    error or Ctrl-C leaves the caches as they were. What does not fit is refused before the disk is
    full. Importing again changes nothing. A tag that is there already stands for what the archive
    says afterwards. Caches in an object store take no archive: nothing there can be moved into
    place at once.

    Exit codes: 0 all of it is in the caches, 1 it could not be imported, 2 wrong usage.
    """
    try:
        source = file.open("rb")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    with source, stack.engine() as client:
        found = stack.find(client, stack_name)
        try:
            with (
                staging.alone(client, found),
                console.meter("importing") as meter,
            ):
                imported = _import(client, found, source, meter)
        except CachectlError as error:
            raise CachectlError(f"{file} was not imported: {error}") from error
    if as_json:
        console.as_json(
            {
                registry: {"content": len(own.content), "size": sum(own.content.values())}
                for registry, own in imported.items()
            }
        )
    else:
        console.table(
            ("upstream", ">content"),
            (
                (registry, console.size(sum(own.content.values())))
                for registry, own in imported.items()
            ),
        )


def _import(
    client: DockerClient, found: Stack, source: BinaryIO, meter: Meter
) -> Mapping[str, Contents]:
    archive = Reader(source)
    involved = found.only(archive.registries) if archive.registries else {}
    with ExitStack() as clean_up:
        volumes = {}
        for registry, cache in involved.items():
            mounted = volume.mounted(client, _volume(cache), cache.image)
            volumes[registry] = clean_up.enter_context(mounted)
            clean_up.callback(staging.discard, volumes[registry])
            staging.discard(volumes[registry])
        for registry, pieces in archive.contents():
            staging.stage(volumes[registry], _counted(pieces, meter))
        imported = archive.manifest()
        for registry, own in imported.items():
            staging.stage_links(volumes[registry], own)
        for registry, own in imported.items():
            staging.commit(volumes[registry], own)
    return imported


def _volume(cache: Cache) -> str:
    """The volume of a cache.

    Raises:
        UsageError: it has none.
    """
    match cache.storage:
        case S3Location() as location:
            raise UsageError(
                f"the cache of {cache.registry} is in {location}; allowed: one in a volume, since "
                "nothing can be moved into place in an object store; fill it by `cachectl warm`"
            )
        case name:
            return name


def _counted(pieces: Iterator[Piece], meter: Meter) -> Iterator[Piece]:
    for piece in pieces:
        meter.add(len(piece.piece))
        yield piece
