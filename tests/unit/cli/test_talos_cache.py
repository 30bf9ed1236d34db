"""Image caches of talosctl are written and read; damaged and hostile ones are refused."""

import io
import tarfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talos_registry_cache.cli import talos_cache
from talos_registry_cache.cli.commands.import_ import choose, plan
from talos_registry_cache.cli.errors import CachectlError
from talos_registry_cache.cli.oci_layout import IncompleteError
from talos_registry_cache.cli.tar_stream import ArchiveError
from talos_registry_cache.registry import reference
from talos_registry_cache.registry.reference import Reference
from tests.support import layouts
from tests.support.layouts import Blobs, digest

AMD64, AMD64_BLOBS = layouts.image(b"a layer", b"another layer" * 100)
ARM64, _ = layouts.image(b"a layer", b"", architecture="arm64")
SIGNATURE, SIGNATURE_BLOBS = layouts.image(b"a signature", architecture="")
INDEX = layouts.index(AMD64, ARM64)
BLOBS = AMD64_BLOBS | SIGNATURE_BLOBS | {digest(INDEX): INDEX}
TAG_OF_SIGNATURE = f"{digest(INDEX).replace(':', '-')}.sig"
IMAGES = {
    "docker.io/library/app:1": digest(INDEX),
    f"docker.io/library/app:{TAG_OF_SIGNATURE}": digest(SIGNATURE),
    "localhost:5000/team/a/app:v2": digest(AMD64),
    f"quay.io/team/app@{digest(AMD64)}": digest(AMD64),
}


def write(folder: Path, blobs: Blobs, images: Mapping[str, str]) -> Path:
    """The image cache of some blobs and some images, as export writes it."""
    folder.mkdir(parents=True)
    with closing(talos_cache.Writer(folder)) as writer:
        for name, content in blobs.items():
            for piece in (content[:7], content[7:]) if len(content) > 7 else (content,):
                writer.piece(name, len(content), piece)
        for text, named in images.items():
            writer.name(reference.parse(text), named)
        assert writer.end() == sum(map(len, contents(folder).values()))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def read(path: Path) -> tuple[dict[str, str], Blobs]:
    """The digests of images by name, and all blobs, that import reads."""
    with closing(talos_cache.opened(path)) as layout:
        named = choose(layout.entries, ())
        blobs = {
            content.digest: b"".join(content.pieces)
            for addition in plan(layout, named).values()
            for content in layout.contents(addition.blobs)
        }
    return {str(image): one for image, one in named.items()}, blobs


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return write(tmp_path / "cache", BLOBS, IMAGES)


def test_files_are_where_talosctl_looks_for_them(cache: Path) -> None:
    def name(content: bytes) -> str:
        return digest(content).replace(":", "-")

    manifests = {digest(content) for content in (INDEX, AMD64, SIGNATURE)}

    assert contents(cache) == {
        **{
            f"blob/{name(content)}": content
            for one, content in BLOBS.items()
            if one not in manifests
        },
        "manifests/docker.io/library/app/reference/1": INDEX,
        f"manifests/docker.io/library/app/reference/{TAG_OF_SIGNATURE}": SIGNATURE,
        f"manifests/docker.io/library/app/digest/{name(INDEX)}": INDEX,
        f"manifests/docker.io/library/app/digest/{name(AMD64)}": AMD64,
        f"manifests/docker.io/library/app/digest/{name(SIGNATURE)}": SIGNATURE,
        "manifests/localhost_5000_/team/a/app/reference/v2": AMD64,
        f"manifests/localhost_5000_/team/a/app/digest/{name(AMD64)}": AMD64,
        f"manifests/quay.io/team/app/digest/{name(AMD64)}": AMD64,
    }


def packed(cache: Path) -> Path:
    path = cache.with_name("cache.tar.gz")
    path.write_bytes(layouts.tar(contents(cache), "w:gz"))
    return path


def in_an_image(cache: Path) -> Path:
    """As `talosctl image cache-create` writes it by default."""
    manifest, blobs = layouts.image(layouts.tar(contents(cache), "w:gz"))
    layout = layouts.files(blobs, (manifest, {}))
    return layouts.write_folder(layout, cache.with_name("layout"))


Form = Callable[[Path], Path]
ANY_FORM = pytest.mark.parametrize("form", [lambda cache: cache, packed, in_an_image])


@ANY_FORM
def test_import_recognizes_each_form(cache: Path, form: Form) -> None:
    assert read(form(cache)) == (IMAGES, BLOBS)


hosts = st.sampled_from(["docker.io", "localhost:5000", "ghcr.io", "a-b.example:1"])
parts = st.from_regex(r"[a-z0-9]+(_[a-z0-9]+|__[a-z0-9]+)?", fullmatch=True).filter(str.isascii)
repositories = st.lists(parts, min_size=2, max_size=4).map("/".join)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
references = st.builds("{}/{}:{}".format, hosts, repositories, tags)


@settings(max_examples=30)
@given(images=st.dictionaries(references, st.lists(st.binary(max_size=200)), min_size=1))
def test_import_reads_an_exported_cache(
    tmp_path_factory: pytest.TempPathFactory, images: Mapping[str, list[bytes]]
) -> None:
    made = {name: layouts.image(*layers) for name, layers in images.items()}
    blobs = {key: content for _, own in made.values() for key, content in own.items()}
    digests = {name: digest(manifest) for name, (manifest, _) in made.items()}

    cache = write(tmp_path_factory.mktemp("cache") / "new", blobs, digests)

    assert read(cache) == (digests, blobs)


def test_an_image_that_is_not_complete_is_left_out(tmp_path: Path) -> None:
    writer = talos_cache.Writer(tmp_path)
    writer.piece(digest(AMD64), len(AMD64), AMD64)

    with pytest.raises(IncompleteError, match="is missing"):
        writer.name(reference.parse("docker.io/team/app:1"), digest(AMD64))

    assert writer.end() == 0
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("repository", ["../../etc/app", "/etc/app", "team/.."])
def test_no_name_in_a_storage_leads_out_of_the_folder(tmp_path: Path, repository: str) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    with closing(talos_cache.Writer(folder)) as writer:
        for name, content in AMD64_BLOBS.items():
            writer.piece(name, len(content), content)
        with pytest.raises(ArchiveError, match="is not an image reference"):
            writer.name(Reference("docker.io", repository, "1", None), digest(AMD64))

    assert list(tmp_path.iterdir()) == [folder]
    assert list((folder / "manifests").iterdir()) == []


# Caches that are refused


def refused(path: Path, words: str) -> None:
    with pytest.raises(CachectlError, match=words):
        read(path)


@ANY_FORM
@pytest.mark.parametrize("kind", ["blob", "digest", "reference"])
def test_a_damaged_file_is_refused(cache: Path, form: Form, kind: str) -> None:
    for path in cache.rglob("*"):
        if path.is_file() and path.parent.name == kind:
            path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))

    refused(form(cache), "is missing" if kind == "reference" else "is damaged")


@pytest.mark.parametrize("form", [packed, in_an_image])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_refused(cache: Path, form: Form, share: float) -> None:
    path = form(cache)
    files = [path] if path.is_file() else list((path / "blobs" / "sha256").iterdir())
    largest = max(files, key=lambda one: one.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: int(largest.stat().st_size * share)])

    refused(path, "truncated|damaged|not an OCI|not a full name|without a full name")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("blob/sha256-1", "does not belong to"),
        ("blob/more/file", "does not belong to"),
        ("manifests/docker.io/team/app/reference/a b", "is not an image reference"),
        ("manifests/docker.io/TEAM/reference/1", "is not an image reference"),
        ("manifests/team/app/reference/1", "is not an image reference"),
        (f"manifests/quay.io/app/digest/sha256-{'0' * 64}", "is damaged"),
    ],
)
def test_a_file_with_another_name_is_refused(cache: Path, name: str, words: str) -> None:
    path = cache / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(AMD64)

    refused(cache, words)


@pytest.mark.parametrize("place", ["blob", "manifests", "manifests/docker.io", "blob/sha256-1"])
def test_links_are_not_followed(cache: Path, place: str) -> None:
    """Neither links to folders nor to files."""
    path = cache / place
    if path.exists():
        path.rename(cache.with_name("elsewhere"))
        path.symlink_to(cache.with_name("elsewhere"))
    else:
        path.symlink_to("/etc/passwd")

    refused(cache, "it is not an image cache of talosctl")


def test_a_tar_with_links_or_paths_out_of_it_is_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo(f"blob/sha256-{'0' * 64}")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    out = tarfile.TarInfo("manifests/../../etc/reference/1")

    for entry, words in ((link, "of the tar type"), (out, "leads out of the archive")):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as target:
            first = tarfile.TarInfo(f"blob/{digest(b'').replace(':', '-')}")
            target.addfile(first)
            target.addfile(entry)
        (tmp_path / "cache.tar").write_bytes(made.getvalue())

        refused(tmp_path / "cache.tar", words)


def test_a_name_that_a_tar_cuts_off_is_refused(cache: Path) -> None:
    """Not imported under another tag: `tarfile` and Go put the rest into an extended header."""
    long = f"manifests/docker.io/library/app/reference/{'v' * 128}"
    files = {long: INDEX, **contents(cache)}
    path = cache.with_name("cache.tar")
    path.write_bytes(layouts.tar(files, kind=tarfile.PAX_FORMAT))
    (cache / long).write_bytes(INDEX)

    assert f"docker.io/library/app:{'v' * 128}" in read(cache)[0]
    refused(path, "v…' in its folder manifests is not an image reference")


def test_an_image_of_something_else_is_still_an_image(tmp_path: Path) -> None:
    """A layout with one image without a name may hold any image."""
    layer = layouts.tar({"etc/hostname": b"a"}, "w:gz")
    manifest, blobs = layouts.image(layer)
    path = layouts.write_folder(layouts.files(blobs, (manifest, {})), tmp_path / "layout")

    with closing(talos_cache.opened(path)) as layout:
        named = choose(layout.entries, [reference.parse("quay.io/team/app:1")])

    assert list(named.values()) == [digest(manifest)]
