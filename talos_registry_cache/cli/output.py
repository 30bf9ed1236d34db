"""Generated files: printed, or written to a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from talos_registry_cache.cli import console
from talos_registry_cache.cli.errors import CachectlError
from talos_registry_cache.talos.cluster_files import write_private

Folder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Write files to this folder instead of printing them.",
    ),
]


def put(files: Mapping[str, str], folder: Path | None, *, is_private: bool = False) -> None:
    """Write files to a folder, or print them.

    Args:
        files: their contents, by their paths in the folder.
        folder: the folder, which is created if needed; None to print them.
        is_private: whether only their owner can read them.

    Raises:
        CachectlError: a file cannot be written.
    """
    if folder is not None:
        _write(files, folder, is_private=is_private)
        return
    for name, content in files.items():
        if len(files) > 1:
            console.out.print(f"# {name}", markup=False)
        console.out.print(content, markup=False, end="")


def _write(files: Mapping[str, str], folder: Path, *, is_private: bool) -> None:
    for name, content in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if is_private:
                write_private(path, content)
            else:
                path.write_text(content)
        except OSError as error:
            raise CachectlError(f"{path} cannot be written: {error}") from error
        console.say(f"wrote {path}")
