"""cachectl images: find the images that files declare."""

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from talos_registry_cache.cli import console, options
from talos_registry_cache.cli.errors import ExitCode, UsageError
from talos_registry_cache.registry import declared_images, files
from talos_registry_cache.registry.declared_images import Found, Place
from talos_registry_cache.registry.errors import NotYamlError

STANDARD_INPUT = "-"


def images(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Files or folders; - is standard input, which is read if there are none.",
        ),
    ] = None,
    *,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-R", help="Read the folders in a folder as well.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Print the images that manifests declare, one per line, sorted, each once.

    A file has Kubernetes manifests, such as the output of Helm and kustomize, values of a chart, a
    kustomization, a Compose file or the machine configuration of a Talos node, as YAML or JSON. Of
    a folder, the files .yaml, .yml and .json are read. For example:

        helm template demo ./chart | cachectl images - > images.txt

    Images are found in the fields that are meant for them, whatever the kind of an object is; not
    in arguments or in texts. With `--json`, each image comes with the file, the document and the
    field. Variables in Compose files have the values of the environment.

    This needs no stack and no engine.

    Exit codes: 0 success, 1 failure, 2 wrong usage, or a file that is not YAML, 3 a field has no
    valid image; it is named.
    """
    found: defaultdict[str, list[_Origin]] = defaultdict(list)
    doubts = []
    for name, text in list(_texts(paths or [], recursive=recursive)):
        for one in _in_text(name, text):
            if isinstance(one, Found):
                found[str(one.reference)].append(_Origin(name, one.place))
            else:
                doubts.append(f"{name}, {one}")
    if as_json:
        console.as_json(
            [
                {"image": image, "found": [origin.described() for origin in found[image]]}
                for image in sorted(found)
            ]
        )
    else:
        for image in sorted(found):
            typer.echo(image)
    for doubt in doubts:
        console.say(doubt)
    if not found and not doubts:
        console.say("found no images")
    if doubts:
        raise typer.Exit(ExitCode.NOT_ALL_THERE)


@dataclass(frozen=True, slots=True)
class _Origin:
    """The field of a file that names an image."""

    file: str
    place: Place

    def described(self) -> Mapping[str, str | int]:
        return {"file": self.file, "document": self.place.document, "path": self.place.path}


def _in_text(name: str, text: str) -> Sequence[Found | declared_images.Doubtful]:
    try:
        return declared_images.find(text, os.environ)
    except NotYamlError as error:
        raise UsageError(f"{name}, {error}; allowed: YAML or JSON") from None


def _texts(paths: Sequence[str], *, recursive: bool) -> Iterator[tuple[str, str]]:
    """The names and contents of files.

    Raises:
        UsageError: one cannot be read, or there are none.
    """
    is_silent = sys.stdin is None or sys.stdin.isatty()
    if not paths and is_silent:
        raise UsageError("no files: give FILE, or the output of another program")
    for path in paths or [STANDARD_INPUT]:
        if path == STANDARD_INPUT:
            yield "standard input", _standard_input()
            continue
        inside = _files(Path(path), recursive=recursive)
        if not inside:
            allowed = ", ".join(sorted(declared_images.SUFFIXES))
            raise UsageError(f"{path} has no manifests; allowed: files that end with {allowed}")
        yield from ((str(file), _read(file)) for file in inside)


def _files(path: Path, *, recursive: bool) -> Sequence[Path]:
    try:
        return declared_images.files(path, recursive=recursive)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def _read(file: Path) -> str:
    try:
        return files.read_text(file, declared_images.SIZE_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None


def _standard_input() -> str:
    if sys.stdin is None:
        raise UsageError("standard input is closed; allowed: the output of another program")
    try:
        return files.text_of(sys.stdin.buffer, declared_images.SIZE_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"standard input cannot be read: {error}") from None
