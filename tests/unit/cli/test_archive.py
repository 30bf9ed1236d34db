"""The archive format: what comes out is what went in, or nothing does."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.cli import archive
from talos_registry_cache.cli.archive import (
    HEADER,
    LINKS,
    SEAL,
    ArchiveError,
    Contents,
    Piece,
    Reader,
    Writer,
    header,
    padding,
)
from talos_registry_cache.registry.layout import Blob, Kind, Storage, link_file
from talos_registry_cache.registry.layout import Link as StoredLink

Stored = dict[str, list[bytes]]
"""Some content of some registries."""

REGISTRIES = st.dictionaries(
    st.sampled_from(["docker.io", "quay.io", "localhost:5000"]),
    st.lists(st.binary(max_size=3000), max_size=4, unique=True),
    max_size=3,
)
STORED: Stored = {"docker.io": [b"one" * 700, b"two"], "quay.io": [b"", b"x" * 512]}


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def link(content: bytes, tag: str = "1.0") -> StoredLink:
    name = digest(content)
    folder = link_file(Kind.TAG, "team/app", name, tag).removesuffix("/current/link")
    return StoredLink(Kind.TAG, "team/app", tag, None, name, folder)


def written(stored: Stored) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, tuple(stored))
    for registry, contents in stored.items():
        for content in contents:
            for piece in (content[:7], content[7:]) if len(content) > 7 else (content,):
                writer.piece(registry, digest(content), len(content), piece)
        blobs = {digest(content): Blob(len(content), digest(content)) for content in contents}
        writer.registry(registry, Storage(blobs, tuple(map(link, contents[:1]))))
    writer.end()
    return file.getvalue()


def read(packed: bytes) -> tuple[Stored, dict[str, Contents]]:
    return read_from(io.BytesIO(packed))


def read_from(source: Any) -> tuple[Stored, dict[str, Contents]]:
    reader = Reader(source)
    stored: Stored = {registry: [] for registry in reader.registries}
    for registry, pieces in reader.contents():
        contents: dict[str, bytes] = {}
        for piece in pieces:
            contents[piece.digest] = contents.get(piece.digest, b"") + piece.piece
        stored[registry] = list(contents.values())
    return stored, dict(reader.manifest())


def tar(*files: tuple[str, bytes]) -> bytes:
    """These files in a tar, without its end."""
    return b"".join(
        header(name, len(content)) + content + padding(len(content)) for name, content in files
    )


def compressed(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(plain)


def sealed(*files: tuple[str, bytes]) -> tuple[str, bytes]:
    """The seal of an archive with these files."""
    covered = b"".join(
        header(name, len(content)) + (content if "/" not in name else b"")
        for name, content in files
    )
    return SEAL, hashlib.sha256(covered).hexdigest().encode()


def made(*files: tuple[str, bytes]) -> bytes:
    """An archive with these files and the right seal."""
    return compressed(tar(*files, sealed(*files)) + END)


END = bytes(1024)
FIRST = (HEADER, b'{"version": 1, "registries": ["docker.io"]}')
CONTENT = (f"0/{digest(b'x').replace(':', '/')}", b"x")


PLAIN = zstandard.ZstdDecompressor().decompressobj().decompress(written(STORED))


def links(*lines: str) -> tuple[str, bytes]:
    return LINKS, "".join(f"{line}\n" for line in lines).encode()


def a_link(
    repository: str = "team/app", tag: str = "1.0", kind: str = "tag", registry: int = 0
) -> str:
    said = {"kind": kind, "repository": repository, "digest": digest(b"x"), "tag": tag}
    return json.dumps({"registry": registry, **said})


@given(REGISTRIES)
def test_what_was_written_is_read(stored: Stored) -> None:
    contents, told = read(written(stored))

    assert contents == stored
    for registry, own in told.items():
        assert own.content == {digest(content): len(content) for content in stored[registry]}
        assert [one.path for one in own.links] == [
            f"{link(content).folder}/current/link" for content in stored[registry][:1]
        ]


@given(st.integers(min_value=0, max_value=len(written(STORED)) - 1))
def test_an_archive_that_was_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ArchiveError):
        read(written(STORED)[:length])


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_an_archive_that_was_changed_is_refused_or_says_the_same(place: int, change: int) -> None:
    archive = bytearray(written(STORED))
    expected = read(bytes(archive))
    archive[place % len(archive)] ^= change
    try:
        found = read(bytes(archive))
    except ArchiveError:
        return
    # Bits of a zstd frame's head that mean nothing.
    assert found == expected


@given(st.binary(min_size=1, max_size=50))
def test_what_follows_an_archive_is_refused(more: bytes) -> None:
    with pytest.raises(ArchiveError):
        read(written(STORED) + more)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_one_byte_that_was_changed_inside_is_refused(place: int, change: int) -> None:
    """As by somebody who unpacks an archive and packs it again: zstd's own checksum is right."""
    plain = bytearray(PLAIN)
    plain[place % len(plain)] ^= change

    with pytest.raises(ArchiveError):
        read(compressed(bytes(plain)))


@given(st.integers(min_value=0, max_value=len(PLAIN) - 1))
def test_what_is_cut_short_inside_is_refused(length: int) -> None:
    with pytest.raises(ArchiveError):
        read(compressed(PLAIN[:length]))


def test_a_well_formed_archive_is_read() -> None:
    lines = links(a_link(), a_link(kind="layer", tag=""), a_link(kind="history"))

    contents, told = read(made(FIRST, CONTENT, lines))

    assert contents == {"docker.io": [b"x"]}
    assert told["docker.io"].content == {digest(b"x"): 1}
    assert [one.kind for one in told["docker.io"].links] == ["tag", "layer", "history"]


@pytest.mark.parametrize(
    "files",
    [
        [],
        [CONTENT],
        [FIRST],
        [FIRST, CONTENT],
        [CONTENT, FIRST, links()],
        [FIRST, CONTENT, CONTENT, links()],
        [FIRST, links(a_link())],
        [FIRST, CONTENT, links(), links()],
        [FIRST, CONTENT, links(), CONTENT],
        [FIRST, FIRST, CONTENT, links()],
        [FIRST, (CONTENT[0], b"y"), links()],
        [FIRST, ("1" + CONTENT[0][1:], b"x"), links()],
        [FIRST, ("0/../../etc/passwd", b"x"), links()],
        [FIRST, CONTENT, links(a_link(repository="../../escape"))],
        [FIRST, CONTENT, links(a_link(repository="team/../app"))],
        [FIRST, CONTENT, links(a_link(repository="team/_layers/app"))],
        [FIRST, CONTENT, links(a_link(tag="../1"))],
        [FIRST, CONTENT, links(a_link(tag=""))],
        [FIRST, CONTENT, links(a_link(kind="layer"))],
        [FIRST, CONTENT, links(a_link(kind="other"))],
        [FIRST, CONTENT, links(a_link(registry=1))],
        [FIRST, CONTENT, links(a_link(registry=-1))],
        [FIRST, CONTENT, links(a_link().replace(digest(b"x"), digest(b"y")))],
        [FIRST, CONTENT, (LINKS, a_link().encode())],
        [FIRST, CONTENT, links(a_link(), "")],
        [FIRST, CONTENT, links("{}")],
        [(HEADER, b'{"version": 2, "registries": []}'), links()],
        [(HEADER, b'{"version": 1, "registries": ["a.io", "a.io"]}'), links()],
        [(HEADER, b'{"version": 1, "registries": ["a.io\\u001b[2J"]}'), links()],
    ],
)
def test_what_makes_no_sense_is_refused(files: list[tuple[str, bytes]]) -> None:
    with pytest.raises(ArchiveError):
        read(made(*files))


def test_another_seal_is_refused() -> None:
    files = FIRST, CONTENT, links(a_link())

    with pytest.raises(ArchiveError, match="its seal"):
        read(compressed(tar(*files, sealed(FIRST, CONTENT, links(a_link("team/bpp")))) + END))


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.DIRTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
        tarfile.AREGTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.GNUTYPE_SPARSE,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
    ],
)
@pytest.mark.parametrize("before", [b"", tar(FIRST)], ids=["first", "among content"])
def test_only_regular_files_are_read(kind: bytes, before: bytes) -> None:
    other = header(CONTENT[0], 1 << 40, kind=kind)

    with pytest.raises(ArchiveError, match="allowed: regular files"):
        read(compressed(before + other + END))


@pytest.mark.parametrize("size", [-1, -512, -(1 << 40)])
@pytest.mark.parametrize("name", [HEADER, CONTENT[0], LINKS])
def test_a_negative_size_is_refused(name: str, size: int) -> None:
    before = b"" if name == HEADER else tar(FIRST)

    with pytest.raises(ArchiveError, match="bytes"):
        read(compressed(before + header(name, size) + END))


@pytest.mark.parametrize("size", [1 << 33, 1 << 62])
def test_content_of_any_size_is_announced_before_it_is_read(size: int) -> None:
    """How much fits is known to the one who asks for it."""
    _, pieces = next(reading(compressed(tar(FIRST) + header(CONTENT[0], size) + bytes(1 << 20))))

    assert next(pieces).size == size


def reading(archive: bytes) -> Iterator[tuple[str, Iterator[Piece]]]:
    return Reader(io.BytesIO(archive)).contents()


@pytest.mark.parametrize("blocks", [0, 1, 3, 100_000])
def test_an_archive_ends_with_two_empty_blocks(blocks: int) -> None:
    files = FIRST, CONTENT, links(a_link())

    with pytest.raises(ArchiveError):
        read(compressed(tar(*files, sealed(*files)) + bytes(512 * blocks)))


def expanding(before: bytes, name: str, piece: bytes, times: int) -> bytes:
    """An archive with one file that is a piece many times over."""
    target = io.BytesIO()
    compressor = zstandard.ZstdCompressor(level=1)
    with compressor.stream_writer(target, closefd=False) as file:
        file.write(before + header(name, len(piece) * times))
        for _ in range(times):
            file.write(piece)
        file.write(END)
    return target.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        expanding(b"", HEADER, b"{}, " * (1 << 18), 300),
        expanding(tar(FIRST), LINKS, b"{}, " * (1 << 18), 60),
        expanding(tar(FIRST), LINKS, b"\n" * (1 << 20), 60),
        expanding(tar(FIRST), LINKS, a_link().encode() + b" " * (1 << 20), 60),
        expanding(tar(FIRST), LINKS, f"{a_link()}\n".encode() * (1 << 12), 300),
        expanding(tar(FIRST), "x" * 90, b"x" * (1 << 20), 300),
        expanding(tar(FIRST, links(), sealed(FIRST, links())), "", bytes(1 << 20), 300),
    ],
    ids=["header", "one line", "empty lines", "a long line", "too many links", "a file", "padding"],
)
def test_what_expands_to_much_is_refused_within_bounds(archive: bytes) -> None:
    assert len(archive) < 300_000

    said, most = read_elsewhere(archive)

    assert said.startswith("refused: ")
    assert most < MEMORY_LIMIT


def test_content_that_expands_to_much_is_read_piece_by_piece() -> None:
    said, most = read_elsewhere(expanding(tar(FIRST), CONTENT[0], bytes(1 << 20), 1500))

    assert said == f"refused: {digest(b'x')} is not what it was"
    assert most < MEMORY_LIMIT


# A process that has read a small archive has 60 MB.
MEMORY_LIMIT = 250_000_000
READ = """
import re, sys
from pathlib import Path

from talos_registry_cache.cli.archive import ArchiveError, Reader

reader = None
try:
    reader = Reader(sys.stdin.buffer)
    for _, pieces in reader.contents():
        for _ in pieces:
            pass
    reader.manifest()
    print("read")
except ArchiveError as error:
    print(f"refused: {error}")
# Not by getrusage, which begins with the peak of the parent.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(int(peak[1]) << 10)
"""


def read_elsewhere(packed: bytes) -> tuple[str, int]:
    """What a process says that reads an archive, and how many bytes of memory it had at most."""
    done = subprocess.run(
        [sys.executable, "-c", READ], input=packed, capture_output=True, timeout=60, check=True
    )
    said, most = done.stdout.decode().strip().rsplit("\n", 1)
    return said, int(most)


class Endless(io.RawIOBase):
    """A pipe whose other end goes on and on."""

    def __init__(self, begin: bytes, then: bytes) -> None:
        self._begin, self._then = begin, then

    def read(self, size: int = -1, /) -> bytes:
        begin, self._begin = self._begin[:size], self._begin[size:]
        return begin or (self._then * size)[:size]


# A block of zstd that holds nothing, and is not the last one.
EMPTY_BLOCK = bytes(3)


@pytest.mark.parametrize("then", [b"", b"\0", b"x"])
def test_what_never_ends_is_refused(then: bytes) -> None:
    begin = written(STORED)[:-7] if then == b"\0" else written(STORED)
    source: Any = Endless(begin, then or EMPTY_BLOCK)

    with pytest.raises(ArchiveError):
        read_from(source)


@pytest.mark.parametrize(
    ("name", "limit"), [("CONTENTS_LIMIT", 1), ("LINKS_LIMIT", 100), ("HEADER_LIMIT", 20)]
)
def test_more_than_is_read_is_not_written(
    monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    monkeypatch.setattr(archive, name, limit)

    with pytest.raises(ArchiveError, match=f"{limit}"):
        written(STORED)


def test_more_contents_than_are_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(STORED)
    monkeypatch.setattr(archive, "CONTENTS_LIMIT", 3)

    with pytest.raises(ArchiveError, match="more than 3 contents"):
        read(content)


def test_damaged_content_is_not_written() -> None:
    name = digest(b"x")
    writer = Writer(io.BytesIO(), ("docker.io",))
    writer.piece("docker.io", name, 1, b"y")

    with pytest.raises(ArchiveError, match="is damaged"):
        writer.registry("docker.io", Storage({name: Blob(1, digest(b"y"))}, ()))


def test_links_to_what_is_not_stored_are_left_out_and_counted() -> None:
    file = io.BytesIO()
    writer = Writer(file, ("docker.io",))

    left_out = writer.registry("docker.io", Storage({}, (link(b"gone"),)))
    writer.end()

    assert left_out == 1
    assert read(file.getvalue())[1]["docker.io"].links == ()
