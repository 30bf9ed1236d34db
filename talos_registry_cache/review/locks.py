"""Compares the locks that a stack names in the two versions."""

from pathlib import Path

from talos_registry_cache.registry import image_lock
from talos_registry_cache.registry.errors import LockError
from talos_registry_cache.registry.image_lock import Difference, ImageLock
from talos_registry_cache.review.model import LockChange


def compare(base: Path | None, head: Path | None) -> LockChange | None:
    """Compare the lock of the base with that of the change.

    Args:
        base: the lock of the base, or None if its stack file names none.
        head: the same of the change.

    Returns:
        What changes, or None if nothing does.
    """
    if head is None:
        return LockChange(in_head=False) if base else None
    before, after = _read(base), _read(head)
    if isinstance(before, str) or isinstance(after, str):
        found = {"base": before, "change": after}
        mistakes = {version: one for version, one in found.items() if isinstance(one, str)}
        return LockChange(in_base=base is not None, mistakes=mistakes)
    difference = image_lock.compare(before, after)
    grown = _grown(before, after, difference)
    if base and not difference and not grown:
        return None
    return LockChange(in_base=base is not None, difference=difference, grown=grown)


def _read(file: Path | None) -> ImageLock | str:
    """Read a lock; return the reason if it is none."""
    if file is None:
        return image_lock.EMPTY
    try:
        return image_lock.read(file)
    except LockError as error:
        # The user knows the file by the name in the stack file.
        return str(error).replace(f"{file.parent}/", "")


def _grown(before: ImageLock, after: ImageLock, difference: Difference) -> int:
    """Bytes that the images need more that keep their digests."""
    kept = (before.images.keys() & after.images.keys()) - difference.moved.keys()
    return sum(max(0, after.images[name].size - before.images[name].size) for name in kept)
