"""The archive in which caches are carried to a machine without network.

A tar in one zstd frame, written and read as a stream:

    talos-registry-cache.json          {"version": 1, "registries": […]}
    <registry>/sha256/<hex>            content, each once, one registry after the other
    manifest.json                      {"registries": {<registry>: {
                                           "content": {<digest>: <size>},
                                           "links": [{"kind", "repository", "digest", "tag"}, …]}}}

The manifest is at the end, since only then it is known what was written; it says what there has to
be, so that an archive that was cut short is refused. Paths of links are made here and never taken
from an archive, and every name is checked, so that none leads out of a storage.
"""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Annotated, Any, BinaryIO, Literal

import zstandard
from pydantic import Field, TypeAdapter, ValidationError

from cachectl.errors import CachectlError
from registry import reference, storage
from registry.errors import RegistryError
from registry.storage import Kind, Storage

HEADER, MANIFEST = "talos-registry-cache.json", "manifest.json"
# Layers are compressed already; a higher level costs time and gains nothing.
LEVEL = 3
PIECE = 1 << 20
# What little is compressed well may become 30 000 times as much.
COMPRESSED_PIECE = 8 << 10
WINDOW = 8 << 20
JSON_LIMIT = 256 << 20

Digest = Annotated[str, Field(pattern=r"^sha256:[a-f0-9]{64}$")]


class ArchiveError(CachectlError):
    """An archive that is no such, was cut short or changed."""


@dataclass(frozen=True, slots=True)
class Link:
    """What refers to content; see `registry.storage`.

    Attributes:
        kind: what it is for.
        repository: the repository that it belongs to.
        digest: what it refers to.
        tag: the tag, for a tag and for what one has stood for.
    """

    kind: Literal["layer", "revision", "history", "tag"]
    repository: str
    digest: Digest
    tag: str

    @property
    def path(self) -> str:
        """The file that holds it, below the storage's root."""
        kind = Kind[self.kind.upper()]
        return storage.link_file(kind, self.repository, self.digest, self.tag)


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive has of a registry.

    Attributes:
        content: digest and size in bytes.
        links: what refers to it.
    """

    content: Mapping[Digest, Annotated[int, Field(ge=0)]]
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of content, while an archive is read.

    Attributes:
        digest: the content.
        size: its size in bytes.
        piece: the piece; the last one of each content comes when its digest was found right.
    """

    digest: str
    size: int
    piece: bytes


@dataclass(frozen=True, slots=True)
class _Header:
    version: Literal[1]
    registries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Manifest:
    registries: Mapping[str, Contents]


_HEADER, _MANIFEST = TypeAdapter(_Header), TypeAdapter(_Manifest)
_KINDS: Mapping[Kind, Literal["layer", "revision", "history", "tag"]] = {
    Kind.LAYER: "layer",
    Kind.REVISION: "revision",
    Kind.HISTORY: "history",
    Kind.TAG: "tag",
}


class Writer:
    """Writes an archive."""

    def __init__(self, file: BinaryIO, registries: tuple[str, ...]) -> None:
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        self._file = compressor.stream_writer(file, closefd=False)
        self._contents: dict[str, Contents] = {}
        self._digest = ""
        self._write(HEADER, _HEADER.dump_json(_Header(1, registries)))

    def piece(self, registry: str, digest: str, size: int, piece: bytes) -> None:
        """Take a piece of content; all pieces of one come one after the other."""
        if digest != self._digest:
            self._digest = digest
            self._file.write(header(f"{registry}/{digest.replace(':', '/')}", size))
            self._left = size
        self._file.write(piece)
        self._left -= len(piece)
        if not self._left:
            self._file.write(padding(size))

    def registry(self, registry: str, stored: Storage) -> int:
        """End a registry, all content of which has been taken.

        Returns:
            How many links are left out, since what they refer to is not stored.

        Raises:
            ArchiveError: content is damaged.
        """
        if damaged := [digest for digest, blob in stored.blobs.items() if blob.found != digest]:
            raise ArchiveError(
                f"{len(damaged)} of what {registry} has stored is damaged, the first {damaged[0]}; "
                "remove it by `cachectl scrub --repair`"
            )
        links = tuple(
            Link(_KINDS[link.kind], link.repository, link.digest, link.tag)
            for link in stored.links
            if link.digest and link.is_sound and link.digest in stored.blobs
        )
        sizes = {digest: blob.size for digest, blob in stored.blobs.items()}
        self._contents[registry] = Contents(sizes, links)
        self._digest = ""
        return len(stored.links) - len(links)

    def end(self) -> None:
        """Write what comes last."""
        self._write(MANIFEST, _MANIFEST.dump_json(_Manifest(self._contents)))
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))
        self._file.flush(zstandard.FLUSH_FRAME)

    def _write(self, name: str, content: bytes) -> None:
        self._file.write(header(name, len(content)) + content + padding(len(content)))


class Reader:
    """Reads an archive, once and in its order, and believes nothing of it.

    Attributes:
        registries: those that it has something of.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Begin to read an archive.

        Raises:
            ArchiveError: it is none.
        """
        self._plain = _Plain(file)
        self._last = b""
        with _explained():
            source: Any = self._plain
            self._tar = tarfile.open(fileobj=source, mode="r|", bufsize=PIECE)  # noqa: SIM115
            first = self._tar.next()
            if first is None or first.name != HEADER:
                raise ArchiveError("it is no archive of caches")
            self.registries = _HEADER.validate_json(self._all_of(first)).registries
        self._seen: dict[str, dict[str, int]] = {registry: {} for registry in self.registries}
        self._ahead = self._entries()

    def contents(self) -> Iterator[tuple[str, Iterator[Piece]]]:
        """All content, registry by registry; each must be read to its end before the next one.

        Raises:
            ArchiveError: it was cut short or changed.
        """
        for registry, entries in groupby(self._ahead, key=lambda entry: entry[0]):
            yield registry, self._pieces(registry, entries)

    def manifest(self) -> Mapping[str, Contents]:
        """What belongs where, by registry, when all content was read.

        Raises:
            ArchiveError: it was cut short or changed, or content is missing.
        """
        with _explained():
            for _ in self._ahead:
                pass
            told = _MANIFEST.validate_json(self._last)
            self._plain.end()
        if {registry: dict(own.content) for registry, own in told.registries.items()} != self._seen:
            raise ArchiveError("its content is not what its manifest says")
        for own in told.registries.values():
            for link in own.links:
                _check(link, own)
        return told.registries

    def _entries(self) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
        with _explained():
            while (entry := self._tar.next()) is not None:
                self._tar.members.clear()  # type: ignore[attr-defined]
                if entry.name == MANIFEST and not self._last:
                    self._last = self._all_of(entry)
                    continue
                registry, _, rest = entry.name.partition("/")
                digest = rest.replace("/", ":")
                if self._last or registry not in self._seen or not reference.is_digest(digest):
                    raise ArchiveError(f"it has {entry.name!r} in it, where that cannot be")
                if not entry.isreg() or digest in self._seen[registry]:
                    raise ArchiveError(f"{entry.name} is no content, or is there twice")
                yield registry, digest, entry

    def _pieces(
        self, registry: str, entries: Iterator[tuple[str, str, tarfile.TarInfo]]
    ) -> Iterator[Piece]:
        for _, digest, entry in entries:
            content, hashed, left = self._open(entry), hashlib.sha256(), entry.size
            while True:
                with _explained():
                    piece = content.read(PIECE)
                hashed.update(piece)
                left -= len(piece)
                if not left and f"sha256:{hashed.hexdigest()}" != digest:
                    raise ArchiveError(f"{digest} is not what it was")
                yield Piece(digest, entry.size, piece)
                if not left:
                    break
            self._seen[registry][digest] = entry.size

    def _all_of(self, entry: tarfile.TarInfo) -> bytes:
        if not entry.isreg() or entry.size > JSON_LIMIT:
            raise ArchiveError(f"{entry.name} has {entry.size} bytes; allowed: {JSON_LIMIT}")
        return self._open(entry).read()

    def _open(self, entry: tarfile.TarInfo) -> IO[bytes]:
        content = self._tar.extractfile(entry)
        if content is None:
            raise ArchiveError(f"{entry.name} is no file")
        return content


class _Plain:
    """What is in a zstd frame, which has to be there to its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        self._rest = bytearray()

    def read(self, size: int, /) -> bytes:
        while len(self._rest) < size and not self._frame.eof:
            compressed = self._file.read(COMPRESSED_PIECE)
            if not compressed:
                raise ArchiveError("it was cut short")
            self._rest += self._frame.decompress(compressed)
        piece = bytes(self._rest[:size])
        del self._rest[:size]
        return piece

    def end(self) -> None:
        """Make sure that nothing but empty blocks is left, and that the frame is whole."""
        while piece := self.read(PIECE):
            if piece.strip(b"\0"):
                raise ArchiveError("something follows its manifest")
        if self._frame.unused_data or self._file.read(1):
            raise ArchiveError("something follows its end")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zstandard.ZstdError, ValidationError) as error:
        raise ArchiveError(f"it was cut short or changed: {error}") from error


def _check(link: Link, own: Contents) -> None:
    """A link must lead to content of the archive, and from within a repository."""
    if link.digest not in own.content:
        raise ArchiveError(f"{link.repository} refers to {link.digest}, which is not in it")
    has_tag = link.kind in {"tag", "history"}
    try:
        named = reference.parse(f"registry.invalid/{link.repository}:{link.tag or 'latest'}")
    except RegistryError as error:
        raise ArchiveError(str(error)) from None
    if named.repository != link.repository or has_tag != bool(link.tag):
        raise ArchiveError(f"it has a link of {link.repository!r} with the tag {link.tag!r}")


def header(
    name: str, size: int, *, owner: tuple[int, int] = (0, 0), kind: bytes = tarfile.REGTYPE
) -> bytes:
    """What stands before a file or folder in a tar."""
    made = tarfile.TarInfo(name)
    made.size, made.type = size, kind
    made.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    made.uid, made.gid = owner
    return made.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """What stands behind a file of a size in a tar."""
    return bytes(-size % tarfile.BLOCKSIZE)
