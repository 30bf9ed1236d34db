"""The archive format: what comes out is what went in, or nothing does."""

import hashlib
import io
import tarfile

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cachectl.archive import ArchiveError, Contents, Link, Reader, Writer, header, padding
from registry.storage import Blob, Kind, Storage, link_file
from registry.storage import Link as StoredLink

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


def read(archive: bytes) -> tuple[Stored, dict[str, Contents]]:
    reader = Reader(io.BytesIO(archive))
    stored: Stored = {registry: [] for registry in reader.registries}
    for registry, pieces in reader.contents():
        contents: dict[str, bytes] = {}
        for piece in pieces:
            contents[piece.digest] = contents.get(piece.digest, b"") + piece.piece
        stored[registry] = list(contents.values())
    return stored, dict(reader.manifest())


def made(*files: tuple[str, bytes]) -> bytes:
    """An archive with these files."""
    parts = [
        part
        for name, content in files
        for part in (header(name, len(content)), content, padding(len(content)))
    ]
    return zstandard.ZstdCompressor().compress(b"".join(parts) + bytes(1024))


FIRST = ("talos-registry-cache.json", b'{"version": 1, "registries": ["docker.io"]}')
CONTENT = (f"docker.io/{digest(b'x').replace(':', '/')}", b"x")


def manifest(links: str = "", content: str = f'"{digest(b"x")}": 1') -> tuple[str, bytes]:
    text = f'{{"registries": {{"docker.io": {{"content": {{{content}}}, "links": [{links}]}}}}}}'
    return "manifest.json", text.encode()


def a_link(repository: str = "team/app", tag: str = "1.0", kind: str = "tag") -> str:
    name = digest(b"x")
    return f'{{"kind": "{kind}", "repository": "{repository}", "digest": "{name}", "tag": "{tag}"}}'


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


def test_a_well_formed_archive_is_read() -> None:
    links = ", ".join([a_link(), a_link(kind="layer", tag=""), a_link(kind="history")])

    contents, told = read(made(FIRST, CONTENT, manifest(links)))

    assert contents == {"docker.io": [b"x"]}
    assert isinstance(told["docker.io"].links[0], Link)


@pytest.mark.parametrize(
    "files",
    [
        [],
        [CONTENT],
        [FIRST],
        [FIRST, CONTENT],
        [FIRST, manifest()],
        [FIRST, CONTENT, CONTENT, manifest()],
        [FIRST, CONTENT, manifest(content="")],
        [FIRST, CONTENT, manifest(), manifest()],
        [FIRST, CONTENT, manifest(), CONTENT],
        [FIRST, FIRST, CONTENT, manifest()],
        [FIRST, (CONTENT[0], b"y"), manifest()],
        [FIRST, ("quay.io/" + CONTENT[0].partition("/")[2], b"x"), manifest()],
        [FIRST, ("docker.io/../../etc/passwd", b"x"), manifest()],
        [FIRST, CONTENT, manifest(a_link(repository="../../escape"))],
        [FIRST, CONTENT, manifest(a_link(repository="team/../app"))],
        [FIRST, CONTENT, manifest(a_link(tag="../1"))],
        [FIRST, CONTENT, manifest(a_link(tag=""))],
        [FIRST, CONTENT, manifest(a_link(kind="layer"))],
        [FIRST, CONTENT, manifest(a_link(kind="other"))],
        [FIRST, CONTENT, manifest(a_link().replace(digest(b"x"), digest(b"y")))],
        [(FIRST[0], b'{"version": 2, "registries": []}')],
    ],
)
def test_what_makes_no_sense_is_refused(files: list[tuple[str, bytes]]) -> None:
    with pytest.raises(ArchiveError):
        read(made(*files))


def test_a_link_of_the_file_system_is_no_content() -> None:
    linked = tarfile.TarInfo(CONTENT[0])
    linked.type, linked.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar = header(FIRST[0], len(FIRST[1])) + FIRST[1] + padding(len(FIRST[1])) + linked.tobuf()

    with pytest.raises(ArchiveError, match="is no content"):
        read(zstandard.ZstdCompressor().compress(tar + bytes(1024)))


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
