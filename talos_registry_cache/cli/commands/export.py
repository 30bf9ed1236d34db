"""cachectl export: write the images of the caches to an archive for other machines."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from docker import DockerClient

from talos_registry_cache.cli import (
    caches,
    console,
    oci_layout,
    options,
    selection,
    stack,
    talos_cache,
)
from talos_registry_cache.cli.console import Meter
from talos_registry_cache.cli.errors import CachectlError, UsageError
from talos_registry_cache.cli.oci_layout import BlobWriter, IncompleteError
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.registry import attachments, interruptible, retention
from talos_registry_cache.registry import image as images
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.client import RegistryClient
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.platforms import ALL, Platform, Platforms
from talos_registry_cache.registry.reference import Reference

PARTIAL, SUFFIX = ".cachectl-export-", ".partial"


class Format(StrEnum):
    """The formats of an export."""

    OCI = "oci"
    TALOS_CACHE = "talos-cache"


def export(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The archive to write, .tar.zst; or a new folder."),
    ],
    *,
    form: Annotated[
        Format, typer.Option("--format", help="talos-cache: a folder for talosctl.")
    ] = Format.OCI,
    upstreams: options.Upstreams = None,
    platforms: Annotated[
        list[str] | None,
        typer.Option(
            "--platform",
            metavar="OS/ARCH",
            help="Only the content for this platform. Repeatable. Default: all that are complete.",
        ),
    ] = None,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Write the images of the caches to one archive, for `cachectl import` or other tools.

    The archive is an OCI image layout: a tar, compressed with zstd, that holds each blob once and
    names each image by its full reference. For example:

        skopeo inspect oci-archive:caches.tar.zst:docker.io/library/alpine:3.20

    An index keeps its digest, and comes with the platforms that the cache has, or with those of
    --platform. Images that are not complete for any of them are named and left out. The stored
    attachments of an image, such as signatures, come with it.

    With --format talos-cache, FILE is a new folder in the form of `talosctl image cache-create
    --layout flat`, which `talosctl image cache-serve` serves to any client:

        cachectl export --format talos-cache caches
        talosctl image cache-serve --image-cache-path caches --address 127.0.0.1:3172

    Everything is checked while it is written. If something is damaged or the export is interrupted,
    there is no archive. A file is replaced once the new archive is complete; a folder must be new
    or empty. The caches keep serving.

    Exit codes: 0 the archive is complete, 1 it could not be written, 2 wrong usage.
    """
    wanted = selection.platforms_of(platforms or [ALL])
    with stack.opened(stack_name) as found:
        chosen = found.only(upstreams or [])
        with (
            caches.locked(found),
            _WRITERS[form](file) as writer,
            console.meter("exporting") as meter,
        ):
            exported = {
                registry: _export(found.engine, cache, wanted, writer, meter)
                for registry, cache in chosen.items()
            }
            length = writer.end()
    if as_json:
        described = {registry: asdict(one) for registry, one in exported.items()}
        console.as_json({"file": str(file), "size": length, "caches": described})
    else:
        console.table(
            ("upstream", ">images", ">size"),
            (
                (registry, str(one.images), console.size(one.size))
                for registry, one in exported.items()
            ),
        )
        console.say(f"{file}: {console.size(length)}")


@dataclass(frozen=True, slots=True)
class _Exported:
    """The images of a cache in an archive.

    Attributes:
        images: how many.
        size: of all their manifests and blobs together, in bytes.
    """

    images: int
    size: int


def _export(
    client: DockerClient, cache: Cache, wanted: Platforms, writer: BlobWriter, meter: Meter
) -> _Exported:
    content = None if wanted == ALL else _content_for(client, cache, wanted)

    def take(digest: str, size: int, piece: bytes) -> None:
        if content is None or digest in content:
            writer.piece(digest, size, piece)
        meter.add(len(piece))

    stored = caches.storage_of(client, cache).read(take, in_turn=True)
    if damaged := [digest for digest, blob in stored.blobs.items() if blob.found != digest]:
        raise CachectlError(
            f"the cache of {cache.registry} is damaged: {len(damaged)} blobs, the first "
            f"{damaged[0]}; remove them with `cachectl scrub --repair`"
        )
    sound = replace(stored, links=tuple(link for link in stored.links if link.is_sound))
    images, digests = 0, set[str]()
    for image in retention.images(sound):
        if content is not None and image.digest not in content:
            continue  # Named before.
        if parts := _name(writer, image.reference(cache.registry), image.digest):
            images += 1
            for tag, digest in image.attachments.items():
                # Those of other platforms' manifests stay.
                if content is None or digest in content:
                    attachment = Reference(cache.registry, image.repository, tag, None)
                    parts |= _name(writer, attachment, digest)
            digests |= parts
    return _Exported(images, sum(stored.blobs[digest].size for digest in digests))


def _name(writer: BlobWriter, reference: Reference, digest: str) -> set[str]:
    """Add an image or attachment, and return its digests; none if it is left out."""
    try:
        parts = writer.name(reference, digest)
    except IncompleteError as error:
        console.say(f"left out {reference}: {error}")
        return set()
    return {*parts.manifests, *parts.blobs}


def _content_for(
    client: DockerClient, cache: Cache, wanted: tuple[Platform, ...]
) -> frozenset[str]:
    """The digests of what some platforms need of the images of a cache.

    What a platform lacks is named, and left out.
    """
    stored = caches.storage_of(client, cache).read(trusting=True)
    references = [image.reference(cache.registry) for image in retention.images(stored)]
    with caches.serving(client, [cache]) as endpoints:
        return interruptible.run(_needed(endpoints[cache.registry], references, wanted))


async def _needed(
    endpoint: str, references: Iterable[Reference], wanted: tuple[Platform, ...]
) -> frozenset[str]:
    needed = set[str]()
    async with RegistryClient(endpoint) as client:
        for reference, node in product(references, wanted):
            try:
                image = await images.walk(client, reference, (node,))
                attached = await attachments.walk(client, image, Attachments.ALL)
            except RegistryError as error:
                console.say(f"left out {node} of {reference}: {error}")
            else:
                for one in (image, *attached):
                    needed.update(part.digest for part in (*one.manifests, *one.blobs))
    return frozenset(needed)


@contextmanager
def _oci_archive(file: Path) -> Iterator[BlobWriter]:
    """A layout in a new file, which replaces another one once it is complete."""
    with _replacing(file, _new_file) as path, path.open("wb") as target:
        yield oci_layout.Writer(target)


@contextmanager
def _talos_cache(folder: Path) -> Iterator[BlobWriter]:
    """An image cache of talosctl in a new folder.

    Raises:
        UsageError: there is something already, which no folder can replace in one step.
    """
    if not _is_free(folder):
        raise UsageError(f"{folder} is there already; allowed: a new or an empty folder")
    with (
        _replacing(folder, _new_folder) as path,
        closing(talos_cache.Writer(path)) as writer,
    ):
        yield writer


_WRITERS: dict[Format, Callable[[Path], AbstractContextManager[BlobWriter]]] = {
    Format.OCI: _oci_archive,
    Format.TALOS_CACHE: _talos_cache,
}


@contextmanager
def _replacing(target: Path, make: Callable[[Path], Path]) -> Iterator[Path]:
    """A new file or folder that moves to its place once it is complete, and is removed otherwise.

    Files of killed processes are removed before: a process holds the lock of its own as long as it
    lives.
    """
    folder = target.absolute().parent
    try:
        _remove_leftovers(folder)
        path, lock = _locked(folder, make)
        try:
            yield path
            path.replace(target)
        finally:
            _remove(path)
            os.close(lock)
    except OSError as error:
        raise CachectlError(f"{target} cannot be written: {error}") from error


def _is_free(folder: Path) -> bool:
    """Whether there is nothing, or an empty folder."""
    try:
        return not any(folder.iterdir())
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _new_file(folder: Path) -> Path:
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=PARTIAL, suffix=SUFFIX)
    os.close(descriptor)
    return Path(name)


def _new_folder(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder, prefix=PARTIAL, suffix=SUFFIX))


def _locked(folder: Path, make: Callable[[Path], Path]) -> tuple[Path, int]:
    """A new file or folder, and the descriptor that locks it."""
    while True:
        path = make(folder)
        # Another export may remove it as a leftover before it is locked.
        with suppress(FileNotFoundError):
            descriptor = _descriptor(path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return path, descriptor
            os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(f"{PARTIAL}*{SUFFIX}"):
        # It may belong to somebody else, or be in use.
        with suppress(OSError):
            descriptor = _descriptor(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(descriptor)


def _descriptor(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
