"""Tar archives as streams: written and read one header at a time, within limits.

`tarfile` reads an extended header of any size into memory and follows links. An archive may come
from anywhere, so it is read here without either: names are compared, never used as paths.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from talos_registry_cache.cli.errors import CachectlError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE = 1 << 20
FILES_LIMIT = 250_000
EXTENDED_HEADER_LIMIT = 64 << 10
CUT_OFF = "…"
# GNU tar pads an archive to 10 KiB.
PADDING_LIMIT = 1 << 20
# The default limit of the zstd program.
WINDOW_LIMIT = 128 << 20
# Expands to 32 MB at most: zstd makes up to 32,750 bytes out of one.
COMPRESSED_PIECE = 1 << 10
WORDS_LIMIT = 500
_ZSTD, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
_FILES, _EXTENDED = {tarfile.REGTYPE, tarfile.AREGTYPE}, {tarfile.XHDTYPE, tarfile.XGLTYPE}


class ArchiveError(CachectlError):
    """An archive is truncated, damaged, or not an OCI image layout."""


class File:
    """A file of an archive, while the archive is read.

    Attributes:
        name: its path in the archive.
        size: its size in bytes.
        left: how many bytes have not been read yet.
    """

    def __init__(self, name: str, size: int, source: "Source") -> None:
        self.name, self.size, self.left = name, size, size
        self._source = source

    def pieces(self) -> Iterator[bytes]:
        """The rest of its content, of up to 1 MiB at a time.

        Raises:
            ArchiveError: the archive is truncated or damaged.
        """
        while self.left:
            piece = self._source.read(min(self.left, PIECE))
            self.left -= len(piece)
            yield piece

    def content(self, limit: int) -> bytes:
        """All of its content.

        Raises:
            ArchiveError: it is larger than the limit in bytes, truncated or damaged.
        """
        if self.size > limit:
            raise ArchiveError(f"{self.name} has {self.size} bytes; allowed: {limit}")
        return b"".join(self.pieces())


class Source:
    """Bytes of a file, decompressed if need be, which must not end early."""

    def __init__(self, file: BinaryIO, *, is_plain: bool = False) -> None:
        """Recognize zstd and gzip by the first bytes.

        Args:
            file: a seekable file; it is read from its beginning.
            is_plain: whether it is read as it is.
        """
        file.seek(0)
        start = b"" if is_plain else file.read(len(_ZSTD))
        file.seek(0)
        self._is_plain = False
        if start == _ZSTD:
            self._file = cast("BinaryIO", io.BufferedReader(_Zstd(file), PIECE))
        elif start.startswith(_GZIP):
            self._file = cast("BinaryIO", gzip.GzipFile(fileobj=file))
        else:
            self._file, self._is_plain = file, True

    def read(self, size: int) -> bytes:
        """Exactly so many bytes.

        Raises:
            ArchiveError: the file ends before, or is damaged.
        """
        piece = self._read(size)
        if len(piece) < size:
            raise ArchiveError("it is truncated")
        return piece

    def skip(self, size: int) -> None:
        """Pass over so many bytes.

        Raises:
            ArchiveError: as `read` does; for a file that is not compressed, at the next `read`.
        """
        if self._is_plain:
            self._file.seek(size, io.SEEK_CUR)
            return
        while size:
            size -= len(self.read(min(size, PIECE)))

    def end(self) -> None:
        """Make sure that nothing but padding follows.

        Raises:
            ArchiveError: something does, or the file is truncated or damaged.
        """
        padding = self._read(PADDING_LIMIT)
        if any(padding) or self._read(1):
            raise ArchiveError("data follows the end of the archive")

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except EOFError:
            raise ArchiveError("it is truncated") from None
        except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile) as error:
            raise ArchiveError(f"it is damaged: {error}") from error


class _Zstd(io.RawIOBase):
    """The content of zstd frames, each of which must be complete.

    `zstandard`'s own reader takes a truncated frame for the end of the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: "WriteableBuffer", /) -> int:
        while not self._plain and self._expand():
            pass
        into = memoryview(target)
        count = min(len(into), len(self._plain))
        into[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _expand(self) -> bool:
        """Decompress a little more; returns whether there was more."""
        compressed = self._compressed or self._file.read(COMPRESSED_PIECE)
        if not compressed:
            if self._frame:
                raise EOFError
            return False
        if not self._frame:
            decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT)
            self._frame = decompressor.decompressobj()
        self._plain = memoryview(self._frame.decompress(compressed))
        self._compressed = self._frame.unused_data
        if self._frame.eof:
            self._frame = None
        return True


def files(file: BinaryIO) -> Iterator[File]:
    """The regular files of an archive, in order; content that is not read is skipped.

    A name in an extended header is not read: the file's own, which is cut off, ends with `CUT_OFF`.

    Args:
        file: a tar, which may be compressed with zstd or gzip. It must be seekable.

    Raises:
        ArchiveError: it is truncated, damaged, or has links, devices or paths out of its folder.
    """
    source = Source(file)
    more = ""
    for _ in range(FILES_LIMIT):
        block = source.read(tarfile.BLOCKSIZE)
        if not any(block):
            if any(source.read(tarfile.BLOCKSIZE)):
                raise ArchiveError("it is damaged: one empty block; allowed: two, at its end")
            source.end()
            return
        entry = _parse(block)
        found = File(f"{entry.name}{more}", entry.size, source)
        if entry.type in _EXTENDED:
            more = CUT_OFF if b" path=" in found.content(EXTENDED_HEADER_LIMIT) else ""
        else:
            more = ""
        if entry.type in _FILES:
            yield found
        source.skip(found.left + len(padding(found.size)))
    raise ArchiveError(f"it has more than {FILES_LIMIT} files")


def _parse(block: bytes) -> tarfile.TarInfo:
    """Read a header.

    No name in an image layout is so long that it needs an extended header.
    """
    try:
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise ArchiveError(f"it is damaged, or not a tar: {error}") from error
    shown = repr(entry.name[:WORDS_LIMIT])
    if entry.type not in _FILES | _EXTENDED | {tarfile.DIRTYPE}:
        allowed = "allowed: regular files and folders"
        raise ArchiveError(f"{shown} is of the tar type {entry.type!r}; {allowed}")
    if entry.name.startswith("/") or ".." in entry.name.split("/"):
        raise ArchiveError(f"{shown} leads out of the archive; allowed: paths within it")
    if entry.size < 0:
        raise ArchiveError(f"{shown} has {entry.size} bytes")
    if entry.type in _EXTENDED and entry.size > EXTENDED_HEADER_LIMIT:
        limit = f"allowed: {EXTENDED_HEADER_LIMIT}"
        raise ArchiveError(f"an extended header has {entry.size} bytes; {limit}")
    return entry


def header(
    name: str, size: int, *, owner: tuple[int, int] = (0, 0), kind: bytes = tarfile.REGTYPE
) -> bytes:
    """The header of a file or folder."""
    made = tarfile.TarInfo(name)
    made.size, made.type = size, kind
    made.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    made.uid, made.gid = owner
    return made.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """The padding after a file of a size in bytes."""
    return bytes(-size % tarfile.BLOCKSIZE)


END = bytes(2 * tarfile.BLOCKSIZE)
"""The end of an archive."""
