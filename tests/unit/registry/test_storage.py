import hashlib
from pathlib import Path

import pytest

from registry import storage

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
    """A storage as distribution lays it out: one tag, and a layer that two repositories share."""
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


def test_repositories_tags_and_blobs_are_listed(root: Path) -> None:
    assert list(storage.repositories(root)) == ["library/tool", "team/app"]
    assert storage.tags(root, "team/app") == {"1.0": digest(MANIFEST)}
    assert storage.tags(root, "library/tool") == {}
    assert storage.blobs(root) == {
        digest(content): len(content) for content in (GOOD, BAD, MANIFEST)
    }


def test_a_storage_that_holds_nothing_yet_is_empty(tmp_path: Path) -> None:
    assert list(storage.repositories(tmp_path)) == []
    assert storage.blobs(tmp_path) == {}
    assert list(storage.scrub(tmp_path)) == []


def test_all_is_read_and_what_is_sound_is_not_reported(root: Path) -> None:
    read: list[int] = []

    assert list(storage.scrub(root, read.append)) == []
    assert sum(read) == len(GOOD) + len(BAD) + len(MANIFEST)


@pytest.mark.parametrize("content", [b"", BAD[:-1], BAD.swapcase()])
def test_a_damaged_blob_is_named_with_the_repositories_that_refer_to_it(
    root: Path, content: bytes
) -> None:
    data(root, BAD).write_bytes(content)

    [damage] = storage.scrub(root)

    assert damage.digest == digest(BAD)
    assert damage.problem == f"its content has the digest {digest(content)}"
    assert damage.repositories == ("library/tool", "team/app")


def test_a_blob_that_is_gone_is_named(root: Path) -> None:
    data(root, BAD).unlink()

    [damage] = storage.scrub(root)

    assert (damage.digest, damage.problem) == (digest(BAD), "its content is gone")


@pytest.mark.parametrize("text", ["", "rubbish", digest(GOOD)])
def test_a_broken_link_is_named_and_repair_removes_it_alone(root: Path, text: str) -> None:
    broken = layer_link(root, "team/other", MANIFEST)
    broken.write_text(text)
    before = files(root)

    [damage] = storage.scrub(root)
    storage.repair(damage)

    assert damage.digest == digest(MANIFEST)
    assert damage.problem == f"its link holds {text if text == digest(GOOD) else 'no digest'}"
    assert damage.repositories == ("team/other",)
    assert before - files(root) == {str(broken)}


def test_a_tag_that_stands_for_nothing_is_found(root: Path) -> None:
    tag = root / "docker/registry/v2/repositories/team/app/_manifests/tags/1.0"
    (tag / "current/link").write_text("")

    [damage] = storage.scrub(root)

    assert damage.digest is None
    assert damage.paths == (tag,)


def test_repair_removes_what_is_damaged_and_nothing_else(root: Path) -> None:
    data(root, BAD).write_bytes(b"")
    before = files(root)

    [damage] = storage.scrub(root)
    storage.repair(damage)
    storage.repair(damage)

    gone = before - files(root)
    assert len(gone) == 3
    assert all(digest(BAD).removeprefix("sha256:") in path for path in gone)
    assert list(storage.scrub(root)) == []


def test_repair_of_a_manifest_takes_its_tags_along(root: Path) -> None:
    data(root, MANIFEST).write_bytes(b"{}")

    [damage] = storage.scrub(root)
    storage.repair(damage)

    assert storage.tags(root, "team/app") == {}
    assert digest(MANIFEST) not in storage.blobs(root)
    assert list(storage.scrub(root)) == []


def test_no_link_of_the_file_system_leads_out_of_the_storage(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    name = digest(b"elsewhere").removeprefix("sha256:")
    blob = data(root, b"elsewhere").parent
    blob.parent.mkdir(parents=True)
    blob.symlink_to(outside)
    layers = root / "docker/registry/v2/repositories/team/app/_layers/sha256"
    (layers / name).symlink_to(outside)

    for damage in storage.scrub(root):
        storage.repair(damage)

    assert (outside / "precious").exists()


def files(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*") if path.is_file()}
