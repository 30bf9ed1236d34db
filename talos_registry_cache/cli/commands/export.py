"""cachectl export: caches in one file, for a machine without network."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer
from docker import DockerClient

from talos_registry_cache.cli import caches, console, options, stack, staging
from talos_registry_cache.cli.archive import Writer
from talos_registry_cache.cli.console import Meter
from talos_registry_cache.cli.errors import CachectlError
from talos_registry_cache.cli.stack import Cache

PARTIAL, SUFFIX = ".cachectl-export-", ".partial"


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the archive.")],
    *,
    upstreams: options.Upstreams = None,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Write what the caches have stored into one archive, for `cachectl import` elsewhere.

    The archive (tar in zstd) has the digest of everything in it. All is checked while it is
    written: what is damaged ends the export, and no file is left behind; what an export that was
    killed has left beside FILE is removed. FILE is replaced when the archive is complete. The
    caches go on serving meanwhile.

    Exit codes: 0 the archive is complete, 1 it could not be written, 2 wrong usage.
    """
    with stack.engine() as client:
        found = stack.find(client, stack_name)
        wanted = found.only(upstreams or [])
        with (
            staging.alone(client, found),
            _replacing(file) as target,
            console.meter("exporting") as meter,
        ):
            writer = Writer(target, tuple(wanted))
            sizes = {
                registry: _export(client, cache, writer, meter)
                for registry, cache in wanted.items()
            }
            writer.end()
            length = target.tell()
    if as_json:
        console.as_json({"file": str(file), "size": length, "content": sizes})
    else:
        console.table(
            ("upstream", ">content"),
            ((registry, console.size(size)) for registry, size in sizes.items()),
        )
        console.say(f"{file}: {console.size(length)}")


def _export(client: DockerClient, cache: Cache, writer: Writer, meter: Meter) -> int:
    def take(digest: str, size: int, piece: bytes) -> None:
        writer.piece(cache.registry, digest, size, piece)
        meter.add(len(piece))

    stored = caches.storage_of(client, cache).read(take, in_turn=True)
    if left_out := writer.registry(cache.registry, stored):
        console.say(f"{cache.registry}: {left_out} links left out, their content is not stored")
    return stored.size


@contextmanager
def _replacing(file: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of another one when it is complete, and else vanishes."""
    try:
        with _partial(file.absolute().parent) as target:
            yield target
            target.flush()
            Path(target.name).replace(file)
    except OSError as error:
        raise CachectlError(f"{file} cannot be written: {error}") from error


@contextmanager
def _partial(folder: Path) -> Iterator[BinaryIO]:
    """A new file in a folder; those of processes that were killed are removed from there.

    A process holds the lock of its own file as long as it lives.
    """
    _remove_leftovers(folder)
    with _locked(folder) as target:
        try:
            yield target
        finally:
            Path(target.name).unlink(missing_ok=True)


def _locked(folder: Path) -> BinaryIO:
    while True:
        made = tempfile.NamedTemporaryFile(  # noqa: SIM115 - it is closed by who gets it
            dir=folder, prefix=PARTIAL, suffix=SUFFIX, delete=False
        )
        fcntl.flock(made, fcntl.LOCK_EX)
        # Another export may have taken it for a leftover before it was locked.
        if Path(made.name).exists():
            return cast("BinaryIO", made)
        made.close()


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(f"{PARTIAL}*{SUFFIX}"):
        # It may be somebody else's, or one that is being written.
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
