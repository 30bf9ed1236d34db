"""Image layouts are exported and imported; damaged and hostile ones are refused."""

import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.cli import oci_layout, tar_stream
from talos_registry_cache.cli.commands.import_ import choose, plan
from talos_registry_cache.cli.errors import CachectlError, UsageError
from talos_registry_cache.cli.oci_layout import (
    IMAGE_NAME,
    REF_NAME,
    Entry,
    IncompleteError,
    Layout,
    Writer,
)
from talos_registry_cache.cli.tar_stream import ArchiveError, header
from talos_registry_cache.registry import manifests, reference
from tests.support import layouts
from tests.support.layouts import Blobs, Files, digest

AMD64, AMD64_BLOBS = layouts.image(b"a layer", b"another layer" * 100)
ARM64, ARM64_BLOBS = layouts.image(b"a layer", b"", architecture="arm64")
INDEX = layouts.index(AMD64, ARM64)
APP = "docker.io/team/app:1"
BLOBS = AMD64_BLOBS | {digest(INDEX): INDEX}
LAYOUT = layouts.files(BLOBS, (INDEX, layouts.names(APP)))
FILES = tuple(LAYOUT.items())
END = bytes(1024)

Read = tuple[Mapping[str, str], Mapping[str, dict[str, str]], Blobs]
"""The digests of images by name, the links of each cache, and all blobs."""


def written(blobs: Blobs, images: Mapping[str, str]) -> bytes:
    """The archive of some blobs and some images, as export writes it."""
    file = io.BytesIO()
    writer = Writer(file)
    for name, content in blobs.items():
        for piece in (content[:7], content[7:]) if len(content) > 7 else (content,):
            writer.piece(name, len(content), piece)
    for text, named in images.items():
        writer.name(reference.parse(text), named)
    writer.end()
    return file.getvalue()


def read(path: Path) -> Read:
    """The images, links and blobs that import reads from a layout."""
    with closing(Layout(path)) as layout:
        named = choose(layout.entries, ())
        additions = plan(layout, named)
        blobs = {
            content.digest: b"".join(content.pieces)
            for addition in additions.values()
            for content in layout.contents(addition.blobs)
        }
    links = {registry: dict(addition.links) for registry, addition in additions.items()}
    return {str(image): one for image, one in named.items()}, links, blobs


@pytest.fixture(scope="module")
def read_bytes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Read]:
    path = tmp_path_factory.mktemp("layout") / "layout.tar"

    def read_file(content: bytes) -> Read:
        path.write_bytes(content)
        return read(path)

    return read_file


ReadBytes = Callable[[bytes], Read]
PACKED = written(BLOBS, {APP: digest(INDEX), "quay.io/team/app:2": digest(AMD64)})
PLAIN = zstandard.ZstdDecompressor().decompressobj().decompress(PACKED)
ANY_FORM = pytest.mark.parametrize(
    "packed", [PACKED, PLAIN, gzip.compress(PLAIN)], ids=["zstd", "plain", "gzip"]
)


NAMES = [APP, "quay.io/team/app:2", f"localhost:5000/a@{digest(AMD64)}"]


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.binary(max_size=3000)), min_size=1))
def test_import_reads_an_exported_archive(
    read_bytes: ReadBytes, images: Mapping[str, list[bytes]]
) -> None:
    made = {
        name: (AMD64, AMD64_BLOBS) if "@" in name else layouts.image(*layers)
        for name, layers in images.items()
    }
    blobs = {key: content for _, own in made.values() for key, content in own.items()}
    digests = {name: digest(manifest) for name, (manifest, _) in made.items()}

    named, _, found = read_bytes(written(blobs, digests))

    assert (named, found) == (digests, blobs)


def test_a_blob_of_several_caches_is_written_once_and_read_for_each(read_bytes: ReadBytes) -> None:
    _, links, blobs = read_bytes(PACKED)

    with tarfile.open(fileobj=io.BytesIO(PLAIN)) as tar:
        assert len(tar.getnames()) == len(set(tar.getnames())) == len(BLOBS) + 2
    assert blobs == BLOBS
    assert {one for one in links["quay.io"].values() if one in BLOBS} == set(AMD64_BLOBS)
    root = "docker/registry/v2/repositories/team/app"
    manifest, layer = digest(AMD64).split(":")[1], digest(b"a layer").split(":")[1]
    assert links["docker.io"][f"{root}/_manifests/tags/1/current/link"] == digest(INDEX)
    assert links["docker.io"][f"{root}/_manifests/revisions/sha256/{manifest}/link"]
    assert links["docker.io"][f"{root}/_layers/sha256/{layer}/link"]


@ANY_FORM
@given(data=st.data())
def test_a_truncated_archive_is_refused(
    read_bytes: ReadBytes, packed: bytes, data: st.DataObject
) -> None:
    length = data.draw(st.integers(min_value=0, max_value=len(packed) - 1))

    with pytest.raises(CachectlError):
        read_bytes(packed[:length])


@ANY_FORM
@given(
    place=st.integers(min_value=0),
    change=st.integers(min_value=1, max_value=255),
    more=st.binary(min_size=1, max_size=50).filter(any),
)
def test_an_archive_with_a_changed_byte_or_more_data_is_refused_or_reads_the_same(
    read_bytes: ReadBytes, packed: bytes, place: int, change: int, more: bytes
) -> None:
    with pytest.raises(ArchiveError):
        read_bytes(packed + more)
    changed = bytearray(packed)
    changed[place % len(changed)] ^= change
    try:
        found = read_bytes(bytes(changed))
    except CachectlError:
        return
    assert found == read_bytes(packed)


@pytest.mark.parametrize(
    "packed",
    [
        layouts.tar(LAYOUT),
        layouts.tar(LAYOUT, "w:gz"),
        layouts.tar(LAYOUT, kind=tarfile.GNU_FORMAT),
        layouts.zstd(layouts.tar(LAYOUT)[:3000]) + layouts.zstd(layouts.tar(LAYOUT)[3000:]),
        layouts.tar({f"./{name}": content for name, content in FILES}),
        layouts.tar(dict(reversed(FILES))),
        layouts.tar({"manifest.json": b"[]", "é": b"", **LAYOUT}, kind=tarfile.PAX_FORMAT),
    ],
    ids=["ustar", "gzip", "gnu", "two frames", "./", "index first", "docker and pax"],
)
def test_layouts_from_other_tools_are_read(read_bytes: ReadBytes, packed: bytes) -> None:
    named, _, blobs = read_bytes(packed)

    assert named == {APP: digest(INDEX)}
    assert blobs == BLOBS


def test_only_regular_files_of_a_folder_are_read(tmp_path: Path) -> None:
    assert read(layouts.write_folder(LAYOUT, tmp_path))[2] == BLOBS
    path = tmp_path / "blobs" / digest(AMD64).replace(":", "/")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ArchiveError):
        read(tmp_path)
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        Layout(Path("/dev/zero"))


def without(name: str) -> Files:
    return {key: content for key, content in FILES if key != name}


def blob(content: bytes) -> str:
    return f"blobs/{digest(content).replace(':', '/')}"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "has no oci-layout"),
        (without("oci-layout"), "has no oci-layout"),
        (without("index.json"), "has no index.json"),
        ({**LAYOUT, "oci-layout": b'{"imageLayoutVersion": "2.0.0"}'}, "the version 1.0.0"),
        ({**LAYOUT, "index.json": b"[]"}, "is not an OCI image index"),
        ({**LAYOUT, "index.json": b'{"manifests": [{}]}'}, "is not an OCI image index"),
        ({**LAYOUT, "index.json": b'{"manifests": [' + b"{}," * 99999}, "objects and lists"),
        (without(blob(INDEX)), f"{digest(INDEX)} is missing"),
        (without(blob(AMD64)), "none of the platforms"),
        (without(blob(b"a layer")), "none of the platforms"),
        ({**LAYOUT, blob(b"a layer"): b"A layer"}, "is damaged"),
        ({**LAYOUT, blob(AMD64): AMD64 + b" "}, "is damaged"),
        ({**LAYOUT, f"./{blob(b'a layer')}": b"a layer"}, "is there twice"),
        ({**LAYOUT, "../../etc/passwd": b"x"}, "leads out of the archive"),
        ({**LAYOUT, "/etc/passwd": b"x"}, "leads out of the archive"),
        (layouts.files(BLOBS, (b"a layer", layouts.names(APP))), "is not a manifest"),
        (layouts.files(BLOBS, (INDEX, layouts.names(f"{APP}@{digest(AMD64)}"))), "has the digest"),
        (layouts.files(BLOBS, (INDEX, {REF_NAME: APP, IMAGE_NAME: f"{APP}2"})), "in two ways"),
    ],
)
def test_an_incomplete_layout_is_refused(read_bytes: ReadBytes, files: Files, words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        read_bytes(layouts.tar(files))


OTHER_KINDS = (
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE,
)  # fmt: skip


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        *(
            (header("index.json", 1 << 40, kind=kind) + END, "allowed: regular files")
            for kind in OTHER_KINDS
        ),
        (header("index.json", -1) + END, None),
        (header(blob(b"x"), -(1 << 40)) + END, None),
        (header("index.json", (16 << 20) + 1) + END, None),
        (header("x", (64 << 10) + 1, kind=tarfile.XHDTYPE) + END, None),
        (PLAIN[:-512], None),
        (PLAIN[:-512] + b"x" * 512, None),
        (PLAIN + bytes(2 << 20), None),
    ],
)
def test_other_kinds_of_entries_impossible_sizes_and_endings_are_refused(
    read_bytes: ReadBytes, packed: bytes, words: str | None
) -> None:
    with pytest.raises(ArchiveError, match=words):
        read_bytes(packed)


@pytest.mark.parametrize(
    ("module", "name", "limit"),
    [
        (oci_layout, "REFERENCES_LIMIT", 2),
        (oci_layout, "INDEX_LIMIT", 100),
        (tar_stream, "FILES_LIMIT", 3),
    ],
)
def test_export_refuses_more_than_import_reads(
    monkeypatch: pytest.MonkeyPatch,
    read_bytes: ReadBytes,
    module: ModuleType,
    name: str,
    limit: int,
) -> None:
    monkeypatch.setattr(module, name, limit)

    for attempt in (lambda: written(BLOBS, {APP: digest(INDEX)}), lambda: read_bytes(PACKED)):
        with pytest.raises(ArchiveError, match=str(limit)):
            attempt()


def expanding(name: str, piece: bytes, times: int) -> bytes:
    """A small archive with a file that is a piece many times over."""
    target = io.BytesIO()
    with zstandard.ZstdCompressor(level=1).stream_writer(target, closefd=False) as file:
        file.write(header(name, len(piece) * times))
        for _ in range(times):
            file.write(piece)
        file.write(END)
    return target.getvalue()


def many_references() -> bytes:
    """Manifests that refer to more than can be kept."""
    parts = [layouts.descriptor(str(number).encode()) for number in range(280_000)]
    made = (
        json.dumps({"schemaVersion": 2, "config": parts[0], "layers": parts[first : first + 1000]})
        for first in range(0, len(parts), 1000)
    )
    return layouts.zstd(layouts.tar({blob(one.encode()): one.encode() for one in made}))


@pytest.mark.parametrize(
    "archive",
    [
        expanding("index.json", b"{}, " * (1 << 18), 16),
        expanding(blob(b"x"), b'{"layers":[' * 90_000, 4),
        expanding(blob(b"x"), bytes(1 << 20), 1500),
        expanding("ignored", bytes(1 << 20), 1500),
        layouts.zstd(PLAIN + bytes(300 << 20)),
        many_references(),
    ],
    ids=["index", "manifest", "layer", "other file", "padding", "references"],
)
def test_a_bomb_is_refused_in_bounded_memory(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(archive)

    done = subprocess.run(
        [sys.executable, "-c", READ, tmp_path / "bomb"], capture_output=True, timeout=60, check=True
    )
    said, most = done.stdout.decode().strip().rsplit("\n", 1)

    assert said == "refused"
    assert int(most) < MEMORY_LIMIT


# A process that has read a small archive has 60 MB.
MEMORY_LIMIT = 250_000_000
READ = """
import re, sys
from pathlib import Path

from talos_registry_cache.cli.oci_layout import Layout
from talos_registry_cache.cli.tar_stream import ArchiveError

try:
    Layout(Path(sys.argv[1]))
    print("read")
except ArchiveError:
    print("refused")
# Not by getrusage, which begins with the peak of the parent.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(int(peak[1]) << 10)
"""


# Names


SHORT, OTHER = digest(AMD64), digest(ARM64)


def entries(read_from: Files, tmp_path: Path) -> tuple[Entry, ...]:
    with closing(Layout(layouts.write_folder(read_from, tmp_path))) as layout:
        return layout.entries


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (layouts.names(APP), APP),
        ({REF_NAME: "quay.io/team/app:v3"}, "quay.io/team/app:v3"),
        ({REF_NAME: "1", IMAGE_NAME: APP}, APP),
        ({REF_NAME: "localhost:5000/app"}, "localhost:5000/app:latest"),
        ({IMAGE_NAME: "index.docker.io/library/alpine:3"}, "docker.io/library/alpine:3"),
        ({REF_NAME: "v3"}, None),
        ({REF_NAME: "team/app:v3"}, None),
        ({REF_NAME: "not a name"}, None),
        ({}, None),
    ],
)
def test_the_full_name_of_an_image_is_found(
    tmp_path: Path, annotations: Mapping[str, str], expected: str | None
) -> None:
    [entry] = entries(layouts.files(AMD64_BLOBS, (AMD64, annotations)), tmp_path)

    assert entry.reference == (reference.parse(expected) if expected else None)


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ("quay.io/team/app:v3", [(SHORT, "", None)], SHORT),
        ("quay.io/team/app:v3", [(SHORT, "v2", None)], SHORT),
        ("quay.io/team/app:v3", [(SHORT, "v2", None), (OTHER, "v3", None)], OTHER),
        (f"quay.io/team/app@{OTHER}", [(SHORT, "v2", None), (OTHER, "", None)], OTHER),
        (APP, [(SHORT, "1", None), (OTHER, "", APP)], OTHER),
        ("team/app:1", [(SHORT, "", "quay.io/team/app:1"), (OTHER, "", APP)], OTHER),
    ],
)
def test_a_name_chooses_an_image_of_a_layout(
    wanted: str, found: list[tuple[str, str, str | None]], expected: str
) -> None:
    listed = [Entry(one, short, full and reference.parse(full)) for one, short, full in found]  # type: ignore[arg-type]

    assert choose(listed, [reference.parse(wanted)]) == {reference.parse(wanted): expected}


@pytest.mark.parametrize("wanted", [[], ["quay.io/team/app:v4"]])
def test_a_missing_or_unknown_name_is_an_error_that_lists_the_images(wanted: list[str]) -> None:
    listed = [Entry(SHORT, "v3", None), Entry(OTHER, "", None)]

    with pytest.raises(UsageError, match=f"v3 \\({SHORT}\\), \\(no name\\)"):
        choose(listed, [reference.parse(one) for one in wanted])


# Indexes


ATTESTATION, ATTESTATION_BLOBS = layouts.image(b"a statement", architecture="unknown")


def nested(inner: bytes) -> bytes:
    return layouts.index(inner).replace(b"image.manifest", b"image.index", 1)


def with_layer() -> bytes:
    """An index that names a blob, as the caches of builds do."""
    content: dict[str, Any] = json.loads(INDEX)
    content["manifests"][1] = layouts.descriptor(b"a layer")
    return json.dumps(content).encode()


def with_attestation() -> bytes:
    content: dict[str, Any] = json.loads(layouts.index(AMD64, ATTESTATION))
    content["manifests"][1]["platform"] = {"os": "unknown", "architecture": "unknown"}
    return json.dumps(content).encode()


BOTH = with_attestation()
NESTED = nested(INDEX)
WITH_A_LAYER = with_layer()


@pytest.mark.parametrize(
    ("root", "blobs", "expected"),
    [
        (INDEX, BLOBS, [INDEX, AMD64]),
        (INDEX, BLOBS | ARM64_BLOBS, [INDEX, AMD64, ARM64]),
        (INDEX, BLOBS | {digest(ARM64): ARM64}, [INDEX, AMD64]),
        (BOTH, AMD64_BLOBS, [BOTH, AMD64]),
        (BOTH, AMD64_BLOBS | ATTESTATION_BLOBS, [BOTH, AMD64, ATTESTATION]),
        (BOTH, ATTESTATION_BLOBS, []),
        (INDEX, {}, []),
        (NESTED, BLOBS, [NESTED, INDEX, AMD64]),
        (NESTED, {digest(INDEX): INDEX}, []),
        (WITH_A_LAYER, BLOBS, [WITH_A_LAYER, AMD64]),
    ],
    ids=[
        "one platform", "both", "half of one", "image", "image and attestation",
        "attestation only", "none", "nested", "incomplete nested", "layer in index",
    ],
)  # fmt: skip
def test_an_index_comes_with_the_platforms_that_are_complete(
    read_bytes: ReadBytes, root: bytes, blobs: Blobs, expected: list[bytes]
) -> None:
    blobs = blobs | {digest(root): root}
    if not expected:
        with pytest.raises(IncompleteError):
            written(blobs, {APP: digest(root)})
        return

    _, links, _ = read_bytes(written(blobs, {APP: digest(root)}))

    revisions = {one for path, one in links["docker.io"].items() if "/revisions/" in path}
    assert revisions == {digest(manifest) for manifest in expected}


def test_indexes_inside_each_other_take_little_time_and_have_a_limit(
    read_bytes: ReadBytes,
) -> None:
    root, blobs = INDEX, dict(BLOBS)
    for depth in range(1, manifests.DEPTH_LIMIT + 1):
        # Each way to the image alone would be one of 200 to the power of 4.
        one = json.loads(nested(root))
        root = json.dumps(one | {"manifests": one["manifests"] * 200}).encode()
        blobs |= {digest(root): root}
        if depth < manifests.DEPTH_LIMIT:
            assert read_bytes(written(blobs, {APP: digest(root)}))[0] == {APP: digest(root)}

    with pytest.raises(IncompleteError, match="none of the platforms"):
        written(blobs, {APP: digest(root)})
