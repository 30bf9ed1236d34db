"""Image layouts, exchanged with skopeo and containerd in both directions."""

import gzip
import json
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard

from talos_registry_cache.cli.commands.import_ import choose, plan
from talos_registry_cache.cli.oci_layout import Layout, Writer
from talos_registry_cache.registry import reference
from tests.integration.support import containerd
from tests.support import layouts
from tests.support.layouts import digest

WITHIN_S = 120
APP, ALONE = "docker.io/team/app:1", "localhost:5000/team/alone:v2"
AMD64, BLOBS = layouts.image(gzip.compress(b"a layer" * 1000), gzip.compress(b"another layer"))
ARM64, _ = layouts.image(b"a layer", architecture="arm64")
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": f"{layouts.OCI}.index.v1+json",
        "manifests": [
            layouts.descriptor(one, "manifest", platform={"os": "linux", "architecture": name})
            for one, name in ((AMD64, "amd64"), (ARM64, "arm64"))
        ],
    }
).encode()


def skopeo(*arguments: str | Path) -> str:
    assert shutil.which("skopeo"), "skopeo is not on PATH; run the tests by `make test`"
    done = subprocess.run(
        ["skopeo", "--insecure-policy", "--override-arch", "amd64", *arguments],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive as `cachectl export` writes it: an index with one of two platforms, an image."""
    path = tmp_path_factory.mktemp("exported") / "caches.tar.zst"
    with path.open("wb") as file:
        writer = Writer(file)
        for name, content in {**BLOBS, digest(INDEX): INDEX}.items():
            writer.piece(name, len(content), content)
        writer.name(reference.parse(APP), digest(INDEX))
        writer.name(reference.parse(ALONE), digest(AMD64))
        writer.end()
    return path


@pytest.mark.parametrize("name", [APP, ALONE])
def test_skopeo_reads_an_exported_archive(exported: Path, tmp_path: Path, name: str) -> None:
    inspected: dict[str, Any] = json.loads(skopeo("inspect", f"oci-archive:{exported}:{name}"))
    skopeo("copy", f"oci-archive:{exported}:{name}", f"dir:{tmp_path}/copy")

    assert inspected["Architecture"] == "amd64"
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == AMD64
    copied = {path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    assert set(BLOBS.values()) <= copied


@pytest.mark.parametrize("name", [APP, ALONE])
def test_archives_are_exchanged_with_containerd(exported: Path, tmp_path: Path, name: str) -> None:
    plain, written = tmp_path / "caches.tar", tmp_path / "written.tar"
    with plain.open("wb") as target, exported.open("rb") as source:
        zstandard.ZstdDecompressor().copy_stream(source, target)
    with containerd.running(tmp_path) as client:
        client._ctr("images", "import", "--no-unpack", str(plain))
        client._ctr("images", "export", "--platform", "linux/amd64", str(written), name)

    assert read(written) == read(exported, name)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("oci-archive:{}/layout.tar:v3", "quay.io/team/app:v3"),
        ("oci-archive:{}/layout.tar:quay.io/team/app:v3", None),
        ("oci:{}/layout.tar:v3", "quay.io/team/app:v3"),
        ("oci:{}/layout.tar", "quay.io/team/app:v3"),
    ],
    ids=["short name", "full name", "folder", "no name"],
)
def test_import_reads_layouts_of_skopeo(
    exported: Path, tmp_path: Path, target: str, name: str | None
) -> None:
    skopeo("copy", f"oci-archive:{exported}:{APP}", target.format(tmp_path))

    named, blobs = read(tmp_path / "layout.tar", name)

    assert set(named) == {"quay.io/team/app:v3"}
    assert {content for content in BLOBS.values() if content != AMD64} <= set(blobs.values())


def read(path: Path, name: str | None = None) -> tuple[dict[str, str], layouts.Blobs]:
    """The digests of images by name, and the blobs, that import reads."""
    with closing(Layout(path)) as layout:
        named = choose(layout.entries, [reference.parse(name)] if name else [])
        [addition] = plan(layout, named).values()
        blobs = {one.digest: b"".join(one.pieces) for one in layout.contents(addition.blobs)}
    return {str(image): one for image, one in named.items()}, blobs
