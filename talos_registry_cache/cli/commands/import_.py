"""cachectl import: add the images of an archive to the caches."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer
from docker import DockerClient

from talos_registry_cache.cli import (
    caches,
    console,
    options,
    selection,
    stack,
    staging,
    talos_cache,
)
from talos_registry_cache.cli.console import Meter
from talos_registry_cache.cli.errors import CachectlError, UsageError
from talos_registry_cache.cli.oci_layout import Content, Entry, Layout
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.cli.staging import Addition
from talos_registry_cache.cli.tar_stream import ArchiveError
from talos_registry_cache.engine import volume
from talos_registry_cache.registry import attachments
from talos_registry_cache.registry.layout import Kind, link_file, tag_links
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.s3_location import S3Location

SHOWN_LIMIT = 10

Named = Mapping[Reference, str]
"""The images to import, and the digests that they have in the layout."""


def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="An OCI image layout: a folder, or a .tar[.gz|.zst]."),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE", help="Import only these images, under these names."),
    ] = None,
    *,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Add the images of an OCI image layout to the caches. Needs no network.

    Reads what `cachectl export` wrote, and layouts of other tools: `skopeo copy … oci-archive:`,
    `docker buildx build --output type=oci`, `ctr image export`, and `talosctl image cache-create`
    with either of its layouts. The registry in an image's name decides which cache it goes to. If a
    layout has only short names such as `v3`, name its images:

        cachectl import layout.tar quay.io/prometheus/prometheus:v3

    This finds the image that is called `v3` in the layout, or the only one. An index is imported
    with the platforms that are complete in the layout.

    All blobs are checked and written beside the storage first, and become part of it once they are
    complete: if the import fails or is interrupted, the caches are as they were. It stops before
    the disk is full. Importing again changes nothing; an existing tag moves to the imported image.
    Caches in an object store are not supported: fill them with `cachectl warm`.

    Exit codes: 0 everything was imported, 1 it failed, 2 wrong usage.
    """
    wanted = selection.gather(images or [], [])
    with ExitStack() as clean_up:
        found = clean_up.enter_context(stack.opened(stack_name))
        try:
            layout = clean_up.enter_context(closing(talos_cache.opened(file)))
            named = choose(layout.entries, wanted)
            additions = plan(layout, named)
            involved = found.only(additions)
            with caches.locked(found), console.meter("importing") as meter:
                _import(found.engine, involved, layout, additions, meter)
        except UsageError:
            raise
        except CachectlError as error:
            raise CachectlError(f"{file} was not imported: {error}") from error
    if as_json:
        console.as_json(
            {registry: _described(registry, named, one) for registry, one in additions.items()}
        )
    else:
        console.table(
            ("image", "digest"),
            (
                (str(image), digest)
                for image, digest in named.items()
                if not attachments.subject(image.tag or "")
            ),
        )


def choose(entries: Sequence[Entry], wanted: Sequence[Reference]) -> Named:
    """The images of a layout that are imported, under their full names.

    Args:
        entries: the images of the layout.
        wanted: the names to import them under; their own if empty.

    Raises:
        UsageError: an image has no full name, or a name means none of them.
    """
    if wanted:
        return {image: _entry_for(image, entries).digest for image in wanted}
    if not entries:
        raise UsageError("the layout has no images")
    if unnamed := [entry for entry in entries if entry.reference is None]:
        raise UsageError(
            f"the layout has images without a full name: {_list(unnamed)}; name them: "
            "cachectl import FILE REGISTRY/REPOSITORY:TAG"
        )
    return {entry.reference: entry.digest for entry in entries if entry.reference}


def plan(layout: Layout, named: Named) -> Mapping[str, Addition]:
    """What an import adds to each cache, by registry.

    Raises:
        ArchiveError: an image is incomplete, or has another digest than its name says.
    """
    blobs: defaultdict[str, dict[str, int]] = defaultdict(dict)
    links: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for reference, digest in named.items():
        if reference.digest not in {None, digest}:
            raise ArchiveError(f"{reference} has the digest {digest} in the layout")
        try:
            image = layout.graph.image(digest)
        except ArchiveError as error:
            raise ArchiveError(f"{reference}: {error}") from None
        kinds = {Kind.REVISION: image.manifests, Kind.LAYER: image.blobs}
        for kind, digests in kinds.items():
            for one in digests:
                blobs[reference.registry][one] = layout.graph.sizes[one]
                links[reference.registry][link_file(kind, reference.repository, one)] = one
        if reference.tag:
            tags = {(reference.repository, reference.tag): digest}
            links[reference.registry] |= tag_links(tags)
    return {registry: Addition(blobs[registry], links[registry]) for registry in blobs}


def _entry_for(image: Reference, entries: Sequence[Entry]) -> Entry:
    """The entry of a layout that a name means."""
    for entry in entries:
        if entry.reference == image:
            return entry
    for entry in entries:
        if image.digest == entry.digest or (entry.short and entry.short == image.tag):
            return entry
    if len(entries) == 1:
        return entries[0]
    raise UsageError(f"the layout has no image {image}; it has: {_list(entries)}")


def _list(entries: Sequence[Entry]) -> str:
    shown = [str(entry) for entry in entries[:SHOWN_LIMIT]]
    more = [f"and {len(entries) - SHOWN_LIMIT} more"] if len(entries) > SHOWN_LIMIT else []
    return ", ".join([*shown, *more]) or "none"


def _import(
    client: DockerClient,
    involved: Mapping[str, Cache],
    layout: Layout,
    additions: Mapping[str, Addition],
    meter: Meter,
) -> None:
    names = {registry: _volume(cache) for registry, cache in involved.items()}
    with ExitStack() as clean_up:
        volumes = {}
        for registry, name in names.items():
            mounted = volume.mounted(client, name, involved[registry].image)
            volumes[registry] = clean_up.enter_context(mounted)
            clean_up.callback(volumes[registry].remove_staged)
            volumes[registry].remove_staged()
        for registry, addition in additions.items():
            staging.stage(volumes[registry], _counted(layout.contents(addition.blobs), meter))
            staging.stage_links(volumes[registry], addition.links)
        for registry, addition in additions.items():
            staging.commit(volumes[registry], addition)


def _volume(cache: Cache) -> str:
    """The volume of a cache.

    Raises:
        UsageError: it is in an object store.
    """
    match cache.storage:
        case S3Location() as location:
            raise UsageError(
                f"the cache of {cache.registry} is in {location}; allowed: caches in a volume, as "
                "an object store cannot move objects into place; use `cachectl warm`"
            )
        case name:
            return name


def _counted(contents: Iterator[Content], meter: Meter) -> Iterator[Content]:
    def counted(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            meter.add(len(piece))
            yield piece

    for content in contents:
        yield Content(content.digest, content.size, counted(content.pieces))


def _described(registry: str, named: Named, addition: Addition) -> dict[str, object]:
    return {
        "images": [str(image) for image in named if image.registry == registry],
        "blobs": len(addition.blobs),
        "size": sum(addition.blobs.values()),
    }
