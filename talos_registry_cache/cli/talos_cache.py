"""Image caches of talosctl: what `image cache-create` writes and `image cache-serve` reads.

    blob/sha256-<hex>                                           configurations and layers, each once
    manifests/<registry>/<repository>/digest/sha256-<hex>       manifests and indexes
    manifests/<registry>/<repository>/reference/<tag>           the same again, for each tag

A port of the registry is between underscores (`localhost_5000_`), since FAT has no colons. There
is no index: a tag is the digest of its file's content (pkg/imager/cache and
internal/app/machined/pkg/system/services/registry in siderolabs/talos, v1.11 to v1.14).

`cache-create` writes this as a folder (`--layout flat`), or by default as the only layer of an
image without a name in an OCI image layout, which Talos adds to its boot images. The folder may
come from anywhere: what is said in `oci_layout` holds for it too.
"""

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from talos_registry_cache.cli import oci_layout, tar_stream
from talos_registry_cache.cli.oci_layout import (
    BlobWriter,
    Entry,
    Image,
    IncompleteError,
    Layout,
    json_of,
)
from talos_registry_cache.cli.tar_stream import ArchiveError, File
from talos_registry_cache.registry import manifests
from talos_registry_cache.registry.reference import Reference

BLOBS, MANIFESTS = "blob", "manifests"
_NAME = re.compile(
    rf"{BLOBS}/sha256-(?P<blob>[a-f0-9]{{64}})"
    rf"|{MANIFESTS}/(?P<repository>[^/]+/.+)"
    r"/(?:digest/sha256-(?P<manifest>[a-f0-9]{64})|reference/(?P<tag>[^/]+))"
)
_PORT = re.compile(r"^(?P<host>[^/]+?)_(?P<port>[0-9]+)_/")


def opened(path: Path) -> Layout:
    """Open an archive: an image cache of talosctl, else an OCI image layout.

    Raises:
        UsageError: it cannot be read.
        ArchiveError: it is neither, truncated or damaged.
    """
    if _is_cache(path):
        return TalosCache(path)
    layout = Layout(path)
    if (layer := _only_layer(layout, path)) and _is_cache(layer):
        layout.close()
        return TalosCache(layer)
    return layout


class TalosCache(Layout):
    """An image cache of talosctl: a folder, or a tar that may be compressed with zstd or gzip.

    Attributes:
        entries: its tags, and the manifests without a tag that are in no index.
        graph: its blobs and manifests.
    """

    KIND = "an image cache of talosctl"

    def _read(self) -> None:
        tags: dict[Reference, str] = {}
        tagged: set[tuple[str, str]] = set()
        held: defaultdict[str, list[str]] = defaultdict(list)
        for file in self._files():
            found = _NAME.fullmatch(file.name.removeprefix("./"))
            if not found:
                raise ArchiveError(f"{file.name!r} does not belong to {self.KIND}")
            repository = found["repository"]
            if tag := found["tag"]:
                image, digest = _reference(f"{repository}:{tag}"), _digest_of_tag(file)
                if tags.setdefault(image, digest) != digest:
                    raise ArchiveError(f"{image} is there twice")
                tagged.add((repository, digest))
                continue
            digest = self._digest_of(file.name)
            if digest not in self.graph.sizes:
                self.graph.add(digest, file.size, json_of(file, digest))
            if repository:
                held[repository].append(digest)
        for repository, digests in held.items():
            for digest in self._without_index(digests):
                if (repository, digest) not in tagged:
                    tags[_reference(f"{repository}@{digest}")] = digest
        self.entries = tuple(Entry(digest, "", image) for image, digest in tags.items())

    def _without_index(self, digests: list[str]) -> Iterator[str]:
        """The manifests of a repository that are in none of its indexes."""
        nodes = [self.graph.node(digest) for digest in digests]
        indexed = {
            one for node in nodes if node.is_index for one in (*node.images, *node.attestations)
        }
        yield from (digest for digest in digests if digest not in indexed)

    def _digest_of(self, name: str) -> str:
        found = _NAME.fullmatch(name.removeprefix("./"))
        hexadecimal = found and (found["blob"] or found["manifest"])
        return f"sha256:{hexadecimal}" if hexadecimal else ""

    def _names(self, folder: Path) -> Iterator[str]:
        """The files of the two folders; links are files too, and refused when they are opened."""
        # Not `walk`, which does not tell a link to a folder from a folder.
        folders = [folder]
        while folders:
            current = folders.pop()
            with os.scandir(current) as entries:
                for entry in sorted(entries, key=lambda one: one.name):
                    if current == folder and entry.name not in {BLOBS, MANIFESTS}:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    else:
                        yield str(Path(entry.path).relative_to(folder))


class Writer(BlobWriter):
    """Writes an image cache to a new folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._file: BinaryIO | None = None
        self._used: set[str] = set()
        for top in (BLOBS, MANIFESTS):
            (folder / top).mkdir()

    def close(self) -> None:
        """Close the file of a blob that is not complete."""
        if self._file:
            self._file.close()

    def name(self, image: Reference, digest: str) -> Image:
        """Add an image whose blobs have all been taken, in the folder of its repository."""
        if oci_layout.full_name(str(image)) != image:
            # It came from a storage, and becomes a path.
            raise ArchiveError(f"{str(image)!r} is not an image reference")
        found = self._graph.image(digest)
        repository = self._folder / MANIFESTS / _folder_of(image)
        for kind in ("digest", "reference"):
            (repository / kind).mkdir(parents=True, exist_ok=True)
        for one in found.manifests:
            shutil.copyfile(self._blob(one), repository / "digest" / _file_name(one))
        if image.tag:
            shutil.copyfile(self._blob(digest), repository / "reference" / image.tag)
        self._used.update(found.blobs)
        return found

    def end(self) -> int:
        """Remove what no image needs as a blob."""
        for digest in self._graph.sizes.keys() - self._used:
            self._blob(digest).unlink()
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    def _begin(self, digest: str, size: int) -> None:  # noqa: ARG002 - a file grows by itself
        self._file = self._blob(digest).open("xb")

    def _append(self, piece: bytes) -> None:
        if self._file:
            self._file.write(piece)

    def _finish(self, size: int) -> None:  # noqa: ARG002 - as above
        self.close()

    def _blob(self, digest: str) -> Path:
        return self._folder / BLOBS / _file_name(digest)


def _is_cache(path: Path) -> bool:
    """Whether a folder or a tar begins as an image cache does; another reads it if not."""
    with suppress(OSError, ValueError, ArchiveError):
        if path.is_dir():
            return (path / BLOBS).is_dir() and (path / MANIFESTS).is_dir()
        if path.is_file():
            with path.open("rb") as file:
                first = next(tar_stream.files(file), None)
                return bool(first and _NAME.fullmatch(first.name.removeprefix("./")))
    return False


def _only_layer(layout: Layout, path: Path) -> Path | None:
    """The file of the layer of the only image in a folder, if it has neither a name nor more.

    Its own digest is not checked: those of everything in it are.
    """
    if len(layout.entries) != 1 or not path.is_dir():
        return None
    [entry] = layout.entries
    if entry.reference or entry.short:
        return None
    with suppress(IncompleteError):
        node = layout.graph.node(entry.digest)
        match node.blobs:
            case (_config, layer) if not node.is_index:
                return path / oci_layout.BLOBS / layer.removeprefix("sha256:")
    return None


def _folder_of(image: Reference) -> Path:
    """The folder of a repository, below that of all manifests."""
    host, colon, port = image.registry.rpartition(":")
    registry = f"{host}_{port}_" if colon else image.registry
    return Path(registry, *image.repository.split("/"))


def _reference(name: str) -> Reference:
    """The reference of a tag or digest by the name of its folder."""
    found = oci_layout.full_name(_PORT.sub(r"\g<host>:\g<port>/", name, count=1))
    if found is None:
        raise ArchiveError(f"{name!r} in its folder {MANIFESTS} is not an image reference")
    return found


def _digest_of_tag(file: File) -> str:
    return manifests.digest_of(file.content(manifests.SIZE_LIMIT))


def _file_name(digest: str) -> str:
    return digest.replace(":", "-", 1)
