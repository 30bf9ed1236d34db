"""Files that a command makes: printed, or written to a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from talos_registry_cache.cli import console
from talos_registry_cache.cli.errors import CachectlError
from talos_registry_cache.talos.cluster_files import write_private

Folder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Write files there, not to a terminal."),
]


def put(files: Mapping[str, str], folder: Path | None, *, is_private: bool = False) -> None:
    """Write files to a folder, or print them where there is none.

    Args:
        files: their contents, by their paths in the folder.
        folder: it is made where it is missing.
        is_private: whether only their owner may read them.

    Raises:
        CachectlError: one cannot be written.
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
