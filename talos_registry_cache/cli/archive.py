"""The archive in which caches are carried to a machine without network.

A tar in one zstd frame, written and read as a stream:

    talos-registry-cache.json    {"version": 1, "registries": [<registry>, ...]}
    <n>/sha256/<hex>             content of the n-th of these registries, each once
    links.jsonl                  what refers to it, one JSON object a line:
                                 {"registry": <n>, "kind", "repository", "digest", "tag"}
    seal.sha256                  sha256 of all headers of the tar so far and of both JSON files

The links are at the end, since only then it is known what was written. Content has its digest for
its name, and the seal covers everything else, so that an archive that was cut short or changed is
refused. It has regular files with short names, two empty blocks at its end, and nothing else.

An archive may come from anywhere. So nothing is read that has no limit (docs/limits.md): tar
headers are read one block at a time, and JSON one line at a time. Paths of links are made here and
never taken from an archive, and every name is checked, so that none leads out of a storage.
"""

import hashlib
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, BinaryIO, Literal

import zstandard
from pydantic import Field, TypeAdapter, ValidationError

from talos_registry_cache.cli.errors import CachectlError
from talos_registry_cache.registry import layout, reference
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.layout import Kind, Storage

HEADER, LINKS, SEAL = "talos-registry-cache.json", "links.jsonl", "seal.sha256"
# Layers are compressed already; a higher level costs time and gains nothing.
LEVEL = 3
PIECE = 1 << 20
# Expands to 32 MB at most: zstd makes up to 32,750 bytes out of one.
COMPRESSED_PIECE = 1 << 10
# A block of zstd has 128 kB at most, so that something comes out of this much.
BARREN_LIMIT = 1 << 20
WINDOW = 8 << 20
JSON_PIECE = 64 << 10
HEADER_LIMIT = 64 << 10
CONTENTS_LIMIT = 1_000_000
LINKS_LIMIT = 128 << 20
# A repository, a tag, a digest and what stands around them. pydantic needs up to 150 bytes of
# memory for one byte of JSON, so lines have to be short.
LINE_LIMIT = 1 << 10
WORDS_LIMIT = 500

_CONTENT = re.compile(r"(\d{1,5})/sha256/([a-f0-9]{64})")

Digest = Annotated[str, Field(pattern=r"^sha256:[a-f0-9]{64}$")]


class ArchiveError(CachectlError):
    """An archive that is no such, was cut short or changed."""


@dataclass(frozen=True, slots=True)
class Link:
    """What refers to content; see `registry.layout`.

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
        return layout.link_file(kind, self.repository, self.digest, self.tag)


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
    registries: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\[\]-]+$")], ...]


@dataclass(frozen=True, slots=True)
class _Line:
    registry: Annotated[int, Field(ge=0)]
    kind: Literal["layer", "revision", "history", "tag"]
    repository: str
    digest: Digest
    tag: str


_HEADER, _LINE = TypeAdapter(_Header), TypeAdapter(_Line)
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
        self._places = {registry: place for place, registry in enumerate(registries)}
        self._seal = hashlib.sha256()
        self._contents = 0
        self._lines = bytearray()
        self._digest = ""
        self._write(HEADER, _HEADER.dump_json(_Header(1, registries)), HEADER_LIMIT)

    def piece(self, registry: str, digest: str, size: int, piece: bytes) -> None:
        """Take a piece of content; all pieces of one come one after the other.

        Raises:
            ArchiveError: there is more than an archive may have.
        """
        if digest != self._digest:
            self._digest = digest
            self._contents += 1
            if self._contents > CONTENTS_LIMIT:
                raise ArchiveError(f"an archive has at most {CONTENTS_LIMIT} contents")
            self._begin(f"{self._places[registry]}/{digest.replace(':', '/')}", size)
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
            ArchiveError: content is damaged, or there is more than an archive may have.
        """
        if damaged := [digest for digest, blob in stored.blobs.items() if blob.found != digest]:
            raise ArchiveError(
                f"{len(damaged)} of what {registry} has stored is damaged, the first {damaged[0]}; "
                "remove it by `cachectl scrub --repair`"
            )
        place, left_out = self._places[registry], 0
        for link in stored.links:
            if link.digest and link.is_sound and link.digest in stored.blobs:
                kind = _KINDS[link.kind]
                line = _Line(place, kind, link.repository, link.digest, link.tag)
                self._lines += _LINE.dump_json(line) + b"\n"
            else:
                left_out += 1
        self._digest = ""
        return left_out

    def end(self) -> None:
        """Write what comes last.

        Raises:
            ArchiveError: there is more than an archive may have.
        """
        self._write(LINKS, bytes(self._lines), LINKS_LIMIT)
        self._write(SEAL, self._seal.hexdigest().encode(), HEADER_LIMIT)
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))
        self._file.flush(zstandard.FLUSH_FRAME)

    def _write(self, name: str, content: bytes, limit: int) -> None:
        if len(content) > limit:
            raise ArchiveError(f"{name} would have {len(content)} bytes; allowed: {limit}")
        self._begin(name, len(content))
        self._seal.update(content)
        self._file.write(content + padding(len(content)))

    def _begin(self, name: str, size: int) -> None:
        block = header(name, size)
        self._seal.update(block)
        self._file.write(block)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of the tar, of which the header was read."""

    name: str
    size: int


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
        self._seal = hashlib.sha256()
        with _explained():
            first = self._next()
            if first.name != HEADER:
                raise ArchiveError("it is no archive of caches")
            told = b"".join(self._sealed(first, HEADER_LIMIT))
            self.registries = _HEADER.validate_json(told).registries
        if repeated := [name for name, times in Counter(self.registries).items() if times > 1]:
            raise ArchiveError(f"it names {repeated[0]} twice")
        self._seen: dict[str, dict[str, int]] = {registry: {} for registry in self.registries}
        self._contents = self._read_contents()
        self._links: _Entry | None = None

    def contents(self) -> Iterator[tuple[str, Iterator[Piece]]]:
        """All content, registry by registry; each must be read to its end before the next one.

        The size of content is what the archive says, and may be any number of bytes.

        Raises:
            ArchiveError: it was cut short or changed.
        """
        for registry, contents in groupby(self._contents, key=lambda content: content[0]):
            yield registry, (piece for _, pieces in contents for piece in pieces)

    def manifest(self) -> Mapping[str, Contents]:
        """What belongs where, by registry, when all content was read.

        Raises:
            ArchiveError: it was cut short or changed, or content is missing.
        """
        links: dict[str, list[Link]] = {registry: [] for registry in self.registries}
        with _explained():
            for _, pieces in self._contents:
                for _ in pieces:
                    pass
            for line in self._lines():
                registry, link = self._link(line)
                links[registry].append(link)
            self._check_seal()
            self._plain.end()
        return {
            registry: Contents(content, tuple(links[registry]))
            for registry, content in self._seen.items()
        }

    def _read_contents(self) -> Iterator[tuple[str, Iterator[Piece]]]:
        for _ in range(CONTENTS_LIMIT + 1):
            with _explained():
                entry = self._next()
            if entry.name == LINKS:
                self._links = entry
                return
            match = _CONTENT.fullmatch(entry.name)
            if not match or int(match[1]) >= len(self.registries):
                raise ArchiveError(f"it has {entry.name!r} in it, where that cannot be")
            registry, digest = self.registries[int(match[1])], f"sha256:{match[2]}"
            if digest in self._seen[registry]:
                raise ArchiveError(f"{entry.name} is there twice")
            yield registry, self._pieces(registry, digest, entry)
        raise ArchiveError(f"it has more than {CONTENTS_LIMIT} contents")

    def _pieces(self, registry: str, digest: str, entry: _Entry) -> Iterator[Piece]:
        hashed, left = hashlib.sha256(), entry.size
        while True:
            with _explained():
                piece = self._plain.read(min(left, PIECE))
            hashed.update(piece)
            left -= len(piece)
            if not left and f"sha256:{hashed.hexdigest()}" != digest:
                raise ArchiveError(f"{digest} is not what it was")
            yield Piece(digest, entry.size, piece)
            if not left:
                break
        with _explained():
            self._plain.empty(len(padding(entry.size)))
        self._seen[registry][digest] = entry.size

    def _lines(self) -> Iterator[bytes]:
        if self._links is None:
            raise ArchiveError("its content was not read to its end")
        rest = b""
        for piece in self._sealed(self._links, LINKS_LIMIT):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
            if len(rest) > LINE_LIMIT:
                break
        if rest:
            raise ArchiveError(f"a line of {LINKS} has no end within {LINE_LIMIT} bytes")

    def _link(self, line: bytes) -> tuple[str, Link]:
        if len(line) > LINE_LIMIT:
            raise ArchiveError(f"a line of {LINKS} has {len(line)} bytes; allowed: {LINE_LIMIT}")
        told = _LINE.validate_json(line)
        if told.registry >= len(self.registries):
            raise ArchiveError(f"it has a link of registry {told.registry}, which it does not name")
        registry = self.registries[told.registry]
        link = Link(told.kind, told.repository, told.digest, told.tag)
        _check(link, self._seen[registry])
        return registry, link

    def _check_seal(self) -> None:
        expected = self._seal.hexdigest().encode()
        entry = self._next()
        if entry.name != SEAL or b"".join(self._sealed(entry, len(expected))) != expected:
            raise ArchiveError("it was cut short or changed: its seal is not that of its content")

    def _next(self) -> _Entry:
        block = self._plain.read(tarfile.BLOCKSIZE)
        self._seal.update(block)
        read = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        # A header of another type, such as one with a long name, is not expanded.
        if read.type != tarfile.REGTYPE:
            raise ArchiveError(f"{read.name!r} is of type {read.type!r}; allowed: regular files")
        if read.size < 0:
            raise ArchiveError(f"{read.name!r} has {read.size} bytes")
        return _Entry(read.name, read.size)

    def _sealed(self, entry: _Entry, limit: int) -> Iterator[bytes]:
        if entry.size > limit:
            raise ArchiveError(f"{entry.name} has {entry.size} bytes; allowed: {limit}")
        left = entry.size
        while left:
            piece = self._plain.read(min(left, JSON_PIECE))
            self._seal.update(piece)
            left -= len(piece)
            yield piece
        self._plain.empty(len(padding(entry.size)))


class _Plain:
    """What is in a zstd frame, which has to be there to its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        self._rest = bytearray()
        self._barren = 0

    def read(self, size: int) -> bytes:
        """The next so many bytes."""
        while len(self._rest) < size:
            self._expand()
        piece = bytes(self._rest[:size])
        del self._rest[:size]
        return piece

    def empty(self, size: int) -> None:
        """Make sure that the next so many bytes are empty."""
        if any(self.read(size)):
            raise ArchiveError("something is where nothing has to be")

    def end(self) -> None:
        """Make sure that nothing but two empty blocks is left, and that the frame is whole."""
        self.empty(2 * tarfile.BLOCKSIZE)
        while not self._rest and not self._frame.eof:
            self._expand()
        if self._rest or self._frame.unused_data or self._file.read(1):
            raise ArchiveError("something follows its end")

    def _expand(self) -> None:
        compressed = b"" if self._frame.eof else self._file.read(COMPRESSED_PIECE)
        if not compressed or self._barren > BARREN_LIMIT:
            raise ArchiveError("it was cut short")
        plain = self._frame.decompress(compressed)
        self._barren = 0 if plain else self._barren + len(compressed)
        self._rest += plain


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zstandard.ZstdError, ValidationError) as error:
        raise ArchiveError(f"it was cut short or changed: {str(error)[:WORDS_LIMIT]}") from error


def _check(link: Link, content: Mapping[str, int]) -> None:
    """A link must lead to content of the archive, and from within a repository."""
    if link.digest not in content:
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
