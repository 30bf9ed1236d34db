import hashlib
import io
import json
from pathlib import Path

import pytest

from talos_registry_cache.registry import layout
from talos_registry_cache.registry.layout import Kind, StorageError
from tests.unit.registry.support.folders import read, repair, scrub, tar

GOOD = b"a layer that is as it was"
BAD = b"a layer that will be damaged"
MANIFEST = b'{"schemaVersion": 2}'


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def data(root: Path, content: bytes) -> Path:
    name = digest(content).removeprefix("sha256:")
    return root / f"docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"


def link(root: Path, place: str, content: bytes) -> Path:
    path = root / "docker/registry/v2/repositories" / place / "link"
    path.parent.mkdir(parents=True)
    path.write_text(digest(content))
    return path


def layer_link(root: Path, repository: str, content: bytes) -> Path:
    return link(root, f"{repository}/_layers/sha256/{digest(content)[7:]}", content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A storage with a tag, and a layer that two repositories share."""
    for content in (GOOD, BAD, MANIFEST):
        data(tmp_path, content).parent.mkdir(parents=True)
        data(tmp_path, content).write_bytes(content)
    layer_link(tmp_path, "team/app", GOOD)
    layer_link(tmp_path, "team/app", BAD)
    layer_link(tmp_path, "library/tool", BAD)
    manifests = "team/app/_manifests"
    name = digest(MANIFEST).removeprefix("sha256:")
    link(tmp_path, f"{manifests}/revisions/sha256/{name}", MANIFEST)
    link(tmp_path, f"{manifests}/tags/1.0/current", MANIFEST)
    link(tmp_path, f"{manifests}/tags/1.0/index/sha256/{name}", MANIFEST)
    (tmp_path / "docker/registry/v2/repositories/team/app/_uploads/x").mkdir(parents=True)
    return tmp_path


def test_tags_blobs_and_links_are_read(root: Path) -> None:
    stored = read(root)

    assert stored.tags == {("team/app", "1.0"): digest(MANIFEST)}
    assert {name: blob.size for name, blob in stored.blobs.items()} == {
        digest(content): len(content) for content in (GOOD, BAD, MANIFEST)
    }
    assert stored.size == len(GOOD) + len(BAD) + len(MANIFEST)
    assert all(link.is_sound for link in stored.links)
    assert {(link.kind, link.repository, link.tag, link.digest) for link in stored.links} == {
        (Kind.LAYER, "library/tool", "", digest(BAD)),
        (Kind.LAYER, "team/app", "", digest(BAD)),
        (Kind.LAYER, "team/app", "", digest(GOOD)),
        (Kind.REVISION, "team/app", "", digest(MANIFEST)),
        (Kind.TAG, "team/app", "1.0", digest(MANIFEST)),
        (Kind.HISTORY, "team/app", "1.0", digest(MANIFEST)),
    }
    for link in stored.links:
        path = layout.link_file(link.kind, link.repository, link.digest or "", link.tag)
        assert path.startswith(f"{link.folder}/")
        assert (root / path).read_text() == link.digest


def test_the_references_of_manifests_are_read(tmp_path: Path) -> None:
    part = {"digest": digest(GOOD)}
    other = {"digest": digest(BAD)}
    contents = [
        json.dumps(value).encode()
        for value in (
            {"schemaVersion": 2, "config": part, "layers": [other]},
            {"schemaVersion": 2, "manifests": [part], "subject": other},
            {"os": "linux", "config": {"Cmd": ["/file"]}},
        )
    ]
    for content in contents:
        data(tmp_path, content).parent.mkdir(parents=True)
        data(tmp_path, content).write_bytes(content)

    blobs = read(tmp_path).blobs

    assert [blobs[digest(content)].refers_to for content in contents] == [
        (digest(GOOD), digest(BAD)),
        (digest(GOOD),),
        (),
    ]
    assert [blobs[digest(content)].subject for content in contents] == [None, digest(BAD), None]


def test_a_tag_is_recognized_by_its_current_link(root: Path) -> None:
    files = [path.relative_to(root).as_posix() for path in root.rglob("link")]

    assert [tag for path in files if (tag := layout.tag_at(path))] == [("team/app", "1.0")]


def test_a_truncated_stream_is_an_error(root: Path) -> None:
    content = tar(root).getvalue()

    for length in range(512, len(content.rstrip(b"\0")), 512):
        stream = io.BytesIO(content[: length + 5])
        with pytest.raises(StorageError, match="cannot read the whole storage"):
            layout.read(stream)


def test_the_content_of_a_sound_storage_is_passed_on(root: Path, tmp_path: Path) -> None:
    pieces: dict[str, bytes] = {}

    def collect(name: str, size: int, piece: bytes) -> None:
        assert len(piece) == size
        pieces[name] = piece

    stored = layout.read(tar(root), collect)

    assert list(layout.damages(stored)) == []
    assert pieces == {digest(content): content for content in (GOOD, BAD, MANIFEST)}
    (tmp_path / "empty").mkdir()
    assert read(tmp_path / "empty").blobs == {}


@pytest.mark.parametrize("content", [b"", BAD[:-1], BAD.swapcase(), None])
def test_a_damaged_or_missing_blob_is_found_with_its_repositories(
    root: Path, content: bytes | None
) -> None:
    if content is None:
        data(root, BAD).unlink()
    else:
        data(root, BAD).write_bytes(content)

    [damage] = scrub(root)

    assert damage.digest == digest(BAD)
    found = "is missing" if content is None else f"has the digest {digest(content)}"
    assert damage.problem == f"its content {found}"
    assert damage.repositories == ("library/tool", "team/app")


@pytest.mark.parametrize("text", ["", "rubbish", digest(GOOD)])
def test_only_a_broken_link_is_removed(root: Path, text: str) -> None:
    broken = layer_link(root, "team/other", MANIFEST)
    broken.write_text(text)
    before = files(root)

    [damage] = scrub(root)
    repair(root, damage)

    assert (damage.digest, damage.repositories) == (digest(MANIFEST), ("team/other",))
    assert damage.problem == f"its link contains {text if text == digest(GOOD) else 'no digest'}"
    assert before - files(root) == {str(broken)}


def test_repair_removes_only_the_damaged_blob_and_its_links(root: Path) -> None:
    data(root, BAD).write_bytes(b"")
    before = files(root)

    [damage] = scrub(root)
    repair(root, damage)
    repair(root, damage)

    gone = before - files(root)
    assert len(gone) == 3
    assert all(digest(BAD).removeprefix("sha256:") in path for path in gone)
    assert scrub(root) == []


@pytest.mark.parametrize("damages", ["manifest", "tag"])
def test_repair_of_a_manifest_or_tag_removes_the_tag(root: Path, damages: str) -> None:
    tag = root / "docker/registry/v2/repositories/team/app/_manifests/tags/1.0"
    if damages == "tag":
        (tag / "current/link").write_text("")
    else:
        data(root, MANIFEST).write_bytes(b"{}")

    [damage] = scrub(root)
    repair(root, damage)

    assert tag.relative_to(root).as_posix() in damage.folders
    assert damage.digest == (None if damages == "tag" else digest(MANIFEST))
    assert read(root).tags == {}
    assert (digest(MANIFEST) in read(root).blobs) == (damages == "tag")
    assert scrub(root) == []


def test_symbolic_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    name = digest(b"elsewhere").removeprefix("sha256:")
    blob = data(root, b"elsewhere").parent
    blob.parent.mkdir(parents=True)
    blob.symlink_to(outside)
    layers = root / "docker/registry/v2/repositories/team/app/_layers/sha256"
    (layers / name).symlink_to(outside)

    for damage in scrub(root):
        repair(root, damage)

    assert (outside / "precious").exists()


def files(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*") if path.is_file()}
