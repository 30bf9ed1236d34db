"""OCI image layouts: the archives that `cachectl export` writes and `cachectl import` reads.

    oci-layout               {"imageLayoutVersion": "1.0.0"}
    blobs/sha256/<hex>       manifests, configurations and layers, each once
    index.json               the images, by name

An index may refer to manifests that are not there: a cache holds the platforms that its nodes have
pulled. The specification allows that, and the index keeps its digest.

A layout may come from anywhere. Blobs are proved by their digests, everything else has limits
(docs/limits.md), and no name in a layout becomes a path.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import zstandard
from pydantic import Field, TypeAdapter, ValidationError

from talos_registry_cache.cli import tar_stream
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.tar_stream import ArchiveError, File, Source, header, padding
from talos_registry_cache.registry import manifests, reference
from talos_registry_cache.registry.errors import ContentError, InvalidReferenceError
from talos_registry_cache.registry.manifests import Descriptor, Index, Manifest
from talos_registry_cache.registry.reference import Reference

MARKER, INDEX, BLOBS = "oci-layout", "index.json", "blobs/sha256"
VERSION = "1.0.0"
# Layers are compressed already; a higher level costs time and gains nothing.
LEVEL = 3
INDEX_LIMIT = 16 << 20
# Of manifests to what they consist of, for all of a layout and for all of its images.
REFERENCES_LIMIT = 250_000

# Most tools name an image by the first annotation, and many by its tag alone. containerd and
# Docker put the full name into the second one.
REF_NAME, IMAGE_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"

_BLOB = re.compile(r"blobs/sha256/([a-f0-9]{64})")


class IncompleteError(ArchiveError):
    """An image lacks a manifest or a blob."""


@dataclass(frozen=True, slots=True)
class Node:
    """A manifest or an index.

    Attributes:
        media_type: its media type.
        size: its size in bytes.
        blobs: the digests of its configuration and layers, or of what an index names beside
            manifests.
        images: the digests of the images and indexes of an index.
        attestations: the digests of manifests of an index that are not images.
    """

    media_type: str
    size: int
    blobs: tuple[str, ...]
    images: tuple[str, ...] = ()
    attestations: tuple[str, ...] = ()

    @property
    def is_index(self) -> bool:
        """Whether it is an index."""
        return self.media_type in manifests.INDEXES


@dataclass(frozen=True, slots=True)
class Image:
    """What is there of an image.

    Attributes:
        manifests: the digests of its manifest, or of its index and what is complete in that.
        blobs: the digests of its configurations and layers.
    """

    manifests: tuple[str, ...]
    blobs: tuple[str, ...]


class Graph:
    """The blobs of a layout, and how its manifests refer to them.

    Attributes:
        sizes: the size of each blob in bytes, by digest.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self._nodes: dict[str, Node] = {}
        self._complete: dict[str, bool] = {}
        self._known, self._used = 0, 0

    def add(self, digest: str, size: int, content: bytes | bytearray) -> None:
        """Add a blob.

        Args:
            digest: its digest.
            size: its size in bytes.
            content: its content where it may be a manifest; else empty.

        Raises:
            ArchiveError: all manifests together have more references than are allowed.
        """
        self.sizes[digest] = size
        self._complete.clear()
        if node := _node(bytes(content)):
            parts = (*node.blobs, *node.images, *node.attestations)
            self._known = _limited(self._known + len(parts))
            self._nodes[digest] = node

    def node(self, digest: str) -> Node:
        """A manifest or an index.

        Raises:
            IncompleteError: it is missing, or not a manifest.
        """
        if digest not in self._nodes:
            problem = "is not a manifest" if digest in self.sizes else "is missing"
            raise IncompleteError(f"{digest} {problem}")
        return self._nodes[digest]

    def image(self, digest: str) -> Image:
        """What is there of an image; of an index, the platforms that are complete.

        Raises:
            IncompleteError: no platform is complete.
            ArchiveError: all images together have more references than are allowed.
        """
        if not self._is_complete(digest):
            raise IncompleteError(self._problem(digest, self.node(digest)))
        found: dict[str, None] = {}
        blobs: dict[str, None] = {}
        ahead = [digest]
        while ahead:
            one = ahead.pop()
            if one not in found and self._is_complete(one):
                node = self._nodes[one]
                found[one] = None
                blobs |= dict.fromkeys(blob for blob in node.blobs if blob in self.sizes)
                ahead += reversed((*node.images, *node.attestations))
        self._used = _limited(self._used + len(found) + len(blobs))
        return Image(tuple(found), tuple(blobs))

    def _is_complete(self, digest: str, depth: int = 0) -> bool:
        """Whether a manifest has its blobs, or an index an image that has them."""
        if digest not in self._complete:
            node = self._nodes.get(digest)
            if node is None or depth > manifests.DEPTH_LIMIT:
                return False
            self._complete[digest] = (
                any(self._is_complete(image, depth + 1) for image in node.images)
                if node.is_index
                else all(blob in self.sizes for blob in node.blobs)
            )
        return self._complete[digest]

    def _problem(self, digest: str, node: Node) -> str:
        if node.is_index:
            return f"none of the platforms of {digest} is complete"
        return f"{next(blob for blob in node.blobs if blob not in self.sizes)} is missing"


class Writer:
    """Writes a layout as a tar compressed with zstd."""

    def __init__(self, file: BinaryIO) -> None:
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        self._file = compressor.stream_writer(file, closefd=False)
        self._graph = Graph()
        self._digest, self._left = "", 0
        self._content = bytearray()
        self._entries: dict[str, dict[str, Any]] = {}
        self._write(MARKER, json.dumps({"imageLayoutVersion": VERSION}).encode())

    def piece(self, digest: str, size: int, piece: bytes) -> None:
        """Take a piece of a blob. All pieces of a blob follow each other; a second copy is ignored.

        Raises:
            ArchiveError: there is more than an archive may have.
        """
        if digest != self._digest:
            if digest in self._graph.sizes:
                return
            if len(self._graph.sizes) >= tar_stream.FILES_LIMIT:
                raise ArchiveError(f"an archive has at most {tar_stream.FILES_LIMIT} files")
            self._digest, self._left = digest, size
            self._content.clear()
            self._file.write(header(f"{BLOBS}/{digest.removeprefix('sha256:')}", size))
        elif not self._left:
            return
        self._file.write(piece)
        self._left -= len(piece)
        if size <= manifests.SIZE_LIMIT:
            self._content += piece
        if not self._left:
            self._file.write(padding(size))
            self._graph.add(digest, size, self._content)

    def name(self, image: Reference, digest: str) -> Image:
        """Add an image whose blobs have all been taken.

        Raises:
            IncompleteError: it is not complete for any platform; it is left out.
            ArchiveError: there is more than an archive may have.
        """
        found = self._graph.image(digest)
        node = self._graph.node(digest)
        self._entries[str(image)] = {
            "mediaType": node.media_type,
            "digest": digest,
            "size": node.size,
            "annotations": {REF_NAME: str(image), IMAGE_NAME: str(image)},
        }
        return found

    def end(self) -> None:
        """Write the index and the end of the archive.

        Raises:
            ArchiveError: there are more images than an archive may have.
        """
        entries = [self._entries[name] for name in sorted(self._entries)]
        content = json.dumps(
            {"schemaVersion": 2, "mediaType": manifests.INDEXES[0], "manifests": entries}, indent=1
        ).encode()
        _check_index(content)
        self._write(INDEX, content)
        self._file.write(tar_stream.END)
        self._file.flush(zstandard.FLUSH_FRAME)

    def _write(self, name: str, content: bytes) -> None:
        self._file.write(header(name, len(content)) + content + padding(len(content)))


@dataclass(frozen=True, slots=True)
class Entry:
    """An image in the index of a layout.

    Attributes:
        digest: the digest of its manifest or index.
        short: the name that is not a full reference, such as a tag; else empty.
        reference: its full reference, or None.
    """

    digest: str
    short: str
    reference: Reference | None

    def __str__(self) -> str:
        """Its name and its digest."""
        return f"{self.reference or self.short or '(no name)'} ({self.digest})"


@dataclass(frozen=True, slots=True)
class Content:
    """A blob, while a layout is read.

    Attributes:
        digest: its digest.
        size: its size in bytes.
        pieces: its content; the last piece comes once the digest has been checked.
    """

    digest: str
    size: int
    pieces: Iterator[bytes]


class Layout:
    """A layout: a folder, or a tar that may be compressed with zstd or gzip.

    Attributes:
        entries: its images.
        graph: its blobs and manifests.
    """

    def __init__(self, path: Path) -> None:
        """Read all of it but the content of layers.

        Raises:
            UsageError: it cannot be read.
            ArchiveError: it is not a layout, truncated or damaged.
        """
        self._path = path
        self._file: BinaryIO | None = None
        self.graph = Graph()
        self.entries: tuple[Entry, ...] = ()
        try:
            is_file = stat.S_ISREG(path.stat().st_mode)
            if is_file:
                self._file = path.open("rb")
            elif not path.is_dir():
                raise UsageError(f"{path} is neither a file nor a folder")
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from None
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close its file."""
        if self._file:
            self._file.close()

    def contents(self, digests: Collection[str]) -> Iterator[Content]:
        """Read some of its blobs, in the order in which they are in the layout.

        Each must be read to its end before the next one.

        Raises:
            ArchiveError: a blob does not have its digest, or the layout is truncated, damaged or
                has changed since it was opened.
        """
        left = set(digests)
        for file in self._files() if left else ():
            digest = _digest(file.name)
            if digest in left:
                yield Content(digest, file.size, _checked(file, digest))
                left.remove(digest)
                if not left:
                    return
        if left:
            raise ArchiveError(f"{left.pop()} is gone: the archive has changed")

    def _read(self) -> None:
        index = marker = b""
        for file in self._files():
            name = file.name.removeprefix("./")
            if name == MARKER:
                marker = file.content(INDEX_LIMIT)
            elif name == INDEX:
                index = file.content(INDEX_LIMIT)
            elif digest := _digest(name):
                if digest in self.graph.sizes:
                    raise ArchiveError(f"{digest} is there twice")
                self.graph.add(digest, file.size, _json(file, digest))
        if not marker or not index:
            missing = INDEX if marker else MARKER
            raise ArchiveError(f"it is not an OCI image layout: it has no {missing}")
        try:
            _MARKER.validate_json(marker)
        except ValidationError:
            raise ArchiveError(f"its {MARKER} does not have the version {VERSION}") from None
        self.entries = tuple(_entry(found) for found in _check_index(index).manifests)

    def _files(self) -> Iterator[File]:
        return tar_stream.files(self._file) if self._file else _in_folder(self._path)


def _in_folder(folder: Path) -> Iterator[File]:
    try:
        blobs = (f"{BLOBS}/{name}" for name in sorted(os.listdir(folder / BLOBS)))  # noqa: PTH208 - as text
        for name in (MARKER, INDEX, *blobs):
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                about = os.fstat(descriptor)
                if not stat.S_ISREG(about.st_mode):
                    raise ArchiveError(f"{name} is not a regular file")
                yield File(name, about.st_size, Source(file, is_plain=True))
    except OSError as error:
        raise ArchiveError(f"it is not an OCI image layout: {error}") from error


def _json(file: File, digest: str) -> bytes:
    """The content of a blob that may be a manifest; else nothing."""
    if file.size > manifests.SIZE_LIMIT:
        return b""
    first = next(pieces := _checked(file, digest), b"")
    return first + b"".join(pieces) if first.startswith(b"{") else b""


def _checked(file: File, digest: str) -> Iterator[bytes]:
    hashed = hashlib.sha256()
    pieces = file.pieces() if file.size else iter((b"",))
    for piece in pieces:
        hashed.update(piece)
        if not file.left and f"sha256:{hashed.hexdigest()}" != digest:
            raise ArchiveError(f"{digest} is damaged: its content has another digest")
        yield piece


def _digest(name: str) -> str:
    """The digest of a blob by its path in a layout; empty for any other file."""
    found = _BLOB.fullmatch(name.removeprefix("./"))
    return f"sha256:{found[1]}" if found else ""


def _node(content: bytes) -> Node | None:
    """A manifest or index; None for any other content."""
    if not content.startswith(b"{"):
        return None
    try:
        manifests.check_values(content)
        head = _HEAD.validate_json(content)
        # In OCI's form, the media type may be left out.
        is_index = head.manifests is not None
        media_type = head.media_type or (manifests.INDEXES if is_index else manifests.MANIFESTS)[0]
        parsed = manifests.parse(content, media_type)
    except (ContentError, ValidationError):
        return None
    if isinstance(parsed, Manifest):
        return Node(media_type, len(content), tuple(blob.digest for blob in parsed.blobs))
    kinds: dict[str, list[str]] = {"blobs": [], "images": [], "attestations": []}
    for entry in parsed.manifests:
        kinds[_kind(entry)].append(entry.digest)
    return Node(media_type, len(content), **{kind: tuple(found) for kind, found in kinds.items()})


def _kind(entry: Descriptor) -> str:
    if not manifests.is_manifest(entry):
        return "blobs"
    return "attestations" if manifests.is_attestation(entry) else "images"


def _entry(found: Descriptor) -> Entry:
    names = [found.annotations[key] for key in (IMAGE_NAME, REF_NAME) if key in found.annotations]
    full = {image for name in names if (image := _full(name))}
    if len(full) > 1:
        raise ArchiveError(f"{INDEX} names {found.digest} in two ways: {' and '.join(names)}")
    short = found.annotations.get(REF_NAME, "")
    return Entry(found.digest, "" if full else short, full.pop() if full else None)


def _full(name: str) -> Reference | None:
    """The reference that a name is if it begins with a registry's host; None for a short one."""
    try:
        found = reference.parse(name)
    except InvalidReferenceError:
        return None
    return found if name.startswith((f"{found.registry}/", "index.docker.io/")) else None


def _check_index(content: bytes) -> Index:
    if len(content) > INDEX_LIMIT:
        raise ArchiveError(f"{INDEX} has {len(content)} bytes; allowed: {INDEX_LIMIT}")
    try:
        manifests.check_values(content)
        return _INDEX.validate_json(content)
    except (ContentError, ValidationError) as error:
        words = str(error)[: tar_stream.WORDS_LIMIT]
        raise ArchiveError(f"its {INDEX} is not an OCI image index: {words}") from None


def _limited(number: int) -> int:
    if number > REFERENCES_LIMIT:
        raise ArchiveError(f"its images refer to blobs more than {REFERENCES_LIMIT} times")
    return number


@dataclass(frozen=True, slots=True)
class _Marker:
    version: Annotated[Literal["1.0.0"], Field(alias="imageLayoutVersion")]


@dataclass(frozen=True, slots=True)
class _Head:
    """What tells a manifest from other JSON."""

    schema_version: Annotated[Literal[2], Field(alias="schemaVersion")]
    media_type: Annotated[str, Field(alias="mediaType")] = ""
    manifests: Any = None


_MARKER, _HEAD, _INDEX = TypeAdapter(_Marker), TypeAdapter(_Head), TypeAdapter(Index)
