"""cachectl export: caches in one file, for a machine without network."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer
from docker import DockerClient

from cachectl import caches, console, options, stack
from cachectl.archive import Writer
from cachectl.console import Meter
from cachectl.errors import CachectlError
from cachectl.stack import Cache


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the archive.")],
    *,
    upstreams: options.Upstreams = None,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Write what the caches have stored into one archive, for `cachectl import` elsewhere.

    The archive (tar in zstd) has the digest of everything in it. All is checked while it is
    written: what is damaged ends the export, and no file is left behind. FILE is replaced when the
    archive is complete. The caches go on serving meanwhile.

    Exit codes: 0 the archive is complete, 1 it could not be written, 2 wrong usage.
    """
    with stack.engine() as client:
        found = stack.find(client, stack_name)
        wanted = found.only(upstreams or [])
        with (
            caches.alone(found),
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
        with tempfile.NamedTemporaryFile(
            dir=file.absolute().parent, prefix=f".{file.name}-", delete=False
        ) as target:
            try:
                yield cast("BinaryIO", target)
                target.flush()
                Path(target.name).replace(file)
            except BaseException:
                Path(target.name).unlink()
                raise
    except OSError as error:
        raise CachectlError(f"{file} cannot be written: {error}") from error
