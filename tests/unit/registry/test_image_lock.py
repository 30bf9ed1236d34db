"""Locks of images: what they say, and what is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.registry import image_lock
from talos_registry_cache.registry.errors import LockError
from talos_registry_cache.registry.image_lock import ImageLock, LockedImage
from talos_registry_cache.registry.reference import parse

DIGEST, OTHER, SIGNATURE = (f"sha256:{letter * 64}" for letter in "abc")
APP, TOOL = "docker.io/team/app:1", "quay.io/team/tool:2"
TAG = f"{DIGEST.replace(':', '-')}.sig"

DIGESTS = st.sampled_from([DIGEST, OTHER, SIGNATURE])
IMAGES = st.builds(
    LockedImage, DIGESTS, st.integers(0, 1 << 50), st.dictionaries(st.just(TAG), DIGESTS)
)
LOCKS = st.builds(
    ImageLock,
    st.sampled_from([("all",), ("linux/amd64",), ("linux/amd64", "linux/arm64/v8")]),
    st.sampled_from(["none", "signatures", "all"]),
    st.dictionaries(st.sampled_from([APP, TOOL, f"ghcr.io/a/b@{OTHER}"]), IMAGES),
)


def lock(**images: LockedImage) -> ImageLock:
    """A lock of the images app and tool."""
    names = {"app": APP, "tool": TOOL}
    found = {names[name]: image for name, image in images.items()}
    return ImageLock(("linux/amd64",), "signatures", found)


TEXT = image_lock.text_of(lock(app=LockedImage(DIGEST, 7, {TAG: SIGNATURE})))


@given(LOCKS)
def test_a_lock_is_read_as_it_was_written(written: ImageLock) -> None:
    text = image_lock.text_of(written)

    assert image_lock.parse(text) == written
    assert image_lock.text_of(image_lock.parse(text)) == text


@given(LOCKS, st.data())
def test_a_lock_with_any_other_value_is_refused(written: ImageLock, data: st.DataObject) -> None:
    content = json.loads(image_lock.text_of(written))
    key = data.draw(st.sampled_from(sorted(content)))

    with pytest.raises(LockError):
        image_lock.parse(json.dumps({**content, key: "another value"}))


def test_another_layout_of_the_same_content_is_accepted() -> None:
    assert image_lock.parse(json.dumps(json.loads(TEXT))) == image_lock.parse(TEXT)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is not JSON: Expecting value: line 1 column 1"),
        ("<<<<<<< HEAD\n" + TEXT, "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "it is a list; allowed: what `cachectl lock` writes"),
        ("{}", "found version none; allowed: 1"),
        (TEXT.replace('"version": 1', '"version": 2'), "found version 2; allowed: 1"),
        (TEXT.replace(DIGEST, OTHER), "it was edited, or merged by hand"),
        (TEXT.replace('"size": 7', '"size": 8'), "it was edited, or merged by hand"),
    ],
)
def test_what_is_not_a_lock_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(LockError) as refused:
        image_lock.parse(text)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("images", {APP: {"digest": "sha256:0", "size": 1}}, f"images.{APP}.digest"),
        ("images", {APP: {"digest": DIGEST, "size": -1}}, f"images.{APP}.size"),
        ("images", {APP: {"digest": DIGEST, "size": 1, "more": 1}}, f"images.{APP}.more"),
        ("images", {"nginx": {"digest": DIGEST, "size": 1}}, "nginx is not the whole name"),
        ("images", {"a b": {"digest": DIGEST, "size": 1}}, "a b"),
        ("attachments", "some", "attachments"),
        ("platforms", ["linux/nonsense"], "linux/nonsense"),
        ("more", 1, "more"),
    ],
)
def test_wrong_content_with_a_right_checksum_is_refused(key: str, value: object, said: str) -> None:
    content = {**json.loads(TEXT), key: value}
    content["checksum"] = image_lock._checksum(content)

    with pytest.raises(LockError) as refused:
        image_lock.parse(json.dumps(content))

    assert said in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(LockError, match="it cannot be read"):
            image_lock.read(path)


def test_a_locked_image_has_its_tag_and_those_of_its_attachments() -> None:
    locked = LockedImage(DIGEST, 7, {TAG: SIGNATURE})

    assert locked.tags(parse(APP)) == {
        ("team/app", "1"): DIGEST,
        ("team/app", TAG): SIGNATURE,
    }
    # A digest says which image is meant, whatever tag stands before it.
    assert locked.tags(parse(f"{APP}@{DIGEST}")) == {("team/app", TAG): SIGNATURE}


def test_locks_are_compared_by_digests_and_attachments() -> None:
    app, moved = LockedImage(DIGEST, 7), LockedImage(OTHER, 8)
    signed = LockedImage(DIGEST, 9, {TAG: SIGNATURE})
    before = lock(app=app, tool=app)

    assert not image_lock.compare(before, before)
    assert not image_lock.compare(lock(app=app), lock(app=LockedImage(DIGEST, 70)))

    found = image_lock.compare(before, lock(app=moved))
    assert found.moved == {APP: (app, moved)}
    assert found.removed == {TOOL: app}
    assert not found.added
    assert found.size == moved.size

    found = image_lock.compare(lock(app=app), lock(app=signed, tool=app))
    assert found.moved == {APP: (app, signed)}
    assert found.added == {TOOL: app}
    assert found.size == signed.size + app.size
