"""The locks of two versions are compared, and a wrong one is reported rather than raised."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from talos_registry_cache.registry import image_lock
from talos_registry_cache.registry.image_lock import Difference, ImageLock, LockedImage
from talos_registry_cache.review import locks
from talos_registry_cache.review.model import LockChange, Preview, StackPreview
from talos_registry_cache.review.preview import PREVIEW

A, B = (f"docker.io/library/{name}:1" for name in "ab")
ONE, TWO = (LockedImage(f"sha256:{digit * 64}", 10) for digit in "12")
SIGNED = LockedImage(ONE.digest, 11, {f"sha256-{'1' * 64}.sig": TWO.digest})

Written = Callable[[Mapping[str, LockedImage]], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A function that writes a lock of some images in a folder of its own."""

    def write(images: Mapping[str, LockedImage]) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        file = folder / "images.lock"
        file.write_text(image_lock.text_of(ImageLock(("linux/amd64",), "signatures", images)))
        return file

    return write


def test_changed_images_are_found(written: Written) -> None:
    found = locks.compare(written({A: ONE}), written({A: TWO, B: ONE}))
    assert found == LockChange(difference=Difference({B: ONE}, {A: (ONE, TWO)}, {}))
    assert found.size == 20


def test_changed_attachments_are_found(written: Written) -> None:
    found = locks.compare(written({A: ONE}), written({A: SIGNED}))
    assert found == LockChange(difference=Difference({}, {A: (ONE, SIGNED)}, {}))
    assert found.size == 11


def test_images_that_need_more_bytes_under_the_same_digest_are_counted(written: Written) -> None:
    larger, smaller = (LockedImage(ONE.digest, size) for size in (25, 4))
    found = locks.compare(written({A: ONE, B: ONE}), written({A: larger, B: smaller}))
    assert found == LockChange(grown=15)
    assert found.size == 15


def test_nothing_is_reported_if_the_images_are_the_same(written: Written) -> None:
    assert locks.compare(written({A: ONE}), written({A: ONE})) is None
    assert locks.compare(None, None) is None


def test_a_new_lock_adds_all_images_and_a_lock_may_be_removed(written: Written) -> None:
    lock = written({A: ONE})
    assert locks.compare(None, lock) == LockChange(
        in_base=False, difference=Difference({A: ONE}, {}, {})
    )
    assert locks.compare(lock, None) == LockChange(in_head=False)


def test_the_reason_is_given_for_an_invalid_lock_without_the_folder_of_the_preview(
    written: Written,
) -> None:
    valid, edited, missing = written({A: ONE}), written({A: ONE}), written({})
    edited.write_text(edited.read_text().replace("10", "11"))
    missing.unlink()
    assert locks.compare(valid, edited) == LockChange(
        mistakes={"change": "it was edited, or merged by hand: run `cachectl lock` again"}
    )
    found = locks.compare(missing, valid)
    assert found is not None
    assert "No such file" in found.mistakes["base"]
    assert "'images.lock'" in found.mistakes["base"]


def test_a_change_stays_the_same_on_its_way_between_the_processes(written: Written) -> None:
    change = locks.compare(written({A: ONE}), written({A: SIGNED, B: TWO}))
    preview = Preview("main", "0" * 40, [StackPreview("dev", lock=change)])
    (received,) = PREVIEW.validate_json(PREVIEW.dump_json(preview)).stacks
    assert received.lock == change
