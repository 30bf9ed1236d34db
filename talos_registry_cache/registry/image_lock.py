"""The lock of an image set: the digests that its tags had when it was locked.

It is a JSON file, such as images.lock beside a stack file, with a checksum against edits by hand.
See docs/decisions/0049-image-locks.md.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from talos_registry_cache.registry import files, platforms, reference
from talos_registry_cache.registry.errors import InvalidReferenceError, LockError, PlatformError
from talos_registry_cache.registry.reference import Reference

FILE = "images.lock"
"""Its name if none is given."""
VERSION = 1
SIZE_LIMIT = 16 << 20
REFUSES = ConfigDict(extra="forbid")

_Digest = Annotated[str, Field(pattern=r"^sha256:[a-f0-9]{64}$")]


@checked(frozen=True, config=REFUSES)
class LockedImage:
    """An image in a lock.

    Attributes:
        digest: the digest of its index or manifest.
        size: bytes of what nodes need of it, and of its attachments.
        attachments: the digests of its attachments, by tag.
        indexes: the indexes of referrers among its attachments, by tag. No registry has those that
            only the referrers API of the upstream lists.
    """

    digest: _Digest
    size: Annotated[int, Field(ge=0)]
    attachments: Mapping[str, _Digest] = field(default_factory=dict)
    indexes: Mapping[str, str] = field(default_factory=dict)

    def tags(self, image: Reference) -> dict[tuple[str, str], str]:
        """The digests of its tags, by repository and tag.

        Args:
            image: its reference.
        """
        # A reference with a digest says nothing about the tag in it.
        own = {image.tag: self.digest} if image.tag and not image.digest else {}
        return {
            (image.repository, tag): digest for tag, digest in {**own, **self.attachments}.items()
        }


@checked(frozen=True, config=REFUSES)
class ImageLock:
    """A lock.

    Attributes:
        platforms: the platforms that are locked, or only `all`.
        attachments: which attachments are locked, as `Attachments` has them.
        images: the images, by their canonical references.
    """

    platforms: tuple[str, ...]
    attachments: Literal["none", "signatures", "all"]
    images: Mapping[str, LockedImage]


EMPTY = ImageLock((), "signatures", {})
"""A lock without images."""


@checked(frozen=True, config=REFUSES)
class _File(ImageLock):
    """A lock as it is written."""

    version: Literal[1]
    checksum: str


_FILE = TypeAdapter(_File)
_LOCK = TypeAdapter(ImageLock)


@dataclass(frozen=True, slots=True)
class Difference:
    """What another lock changes.

    Attributes:
        added: the images that it adds, by reference.
        moved: the images whose digest or attachments it changes: before and after.
        removed: the images that it lacks.
    """

    added: Mapping[str, LockedImage]
    moved: Mapping[str, tuple[LockedImage, LockedImage]]
    removed: Mapping[str, LockedImage]

    def __bool__(self) -> bool:
        """Whether the locks differ."""
        return bool(self.added or self.moved or self.removed)

    @property
    def size(self) -> int:
        """Bytes of the images that it adds or changes. Layers that they share count for each."""
        changed = [*self.added.values(), *(after for _, after in self.moved.values())]
        return sum(image.size for image in changed)


def read(path: Path) -> ImageLock:
    """Read a lock.

    Raises:
        LockError: it cannot be read, or is not a lock; the message does not name the file.
    """
    try:
        return parse(files.read_text(path, SIZE_LIMIT, regular=True))
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"it cannot be read: {error}") from None


def parse(text: str) -> ImageLock:
    """Parse a lock.

    Raises:
        LockError: it is not a lock, was edited, or has another version.
    """
    try:
        written = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LockError(f"it is not JSON: {error}") from None
    if not isinstance(written, dict):
        raise LockError(f"it is a {type(written).__name__}; allowed: what `cachectl lock` writes")
    if written.get("version") != VERSION:
        found = str(written.get("version", "none"))[:20]
        raise LockError(f"found version {found}; allowed: {VERSION}, which `cachectl lock` writes")
    if written.get("checksum") != _checksum(written):
        raise LockError("it was edited, or merged by hand: run `cachectl lock` again")
    try:
        lock = _FILE.validate_python(written)
        platforms.parse_all(lock.platforms)
        for image in lock.images:
            if str(reference.parse(image)) != image:
                raise LockError(f"images.{image} is not the whole name of an image")
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise LockError(f"{path}: {first['msg']}") from None
    except (InvalidReferenceError, PlatformError) as error:
        raise LockError(str(error)) from None
    return ImageLock(lock.platforms, lock.attachments, lock.images)


def text_of(lock: ImageLock) -> str:
    """A lock as `parse` reads it."""
    content: dict[str, Any] = {"version": VERSION, **_LOCK.dump_python(lock, mode="json")}
    content["images"] = dict(sorted(content["images"].items()))
    for image in content["images"].values():
        if not image["indexes"]:
            del image["indexes"]
    content["checksum"] = _checksum(content)
    return json.dumps(content, indent=2) + "\n"


def compare(before: ImageLock, after: ImageLock) -> Difference:
    """Compare the images of two locks."""
    both = before.images.keys() & after.images.keys()
    changed = {name: (before.images[name], after.images[name]) for name in sorted(both)}
    return Difference(
        added=_only(after, before.images.keys()),
        moved={
            name: (old, new)
            for name, (old, new) in changed.items()
            if (old.digest, old.attachments) != (new.digest, new.attachments)
        },
        removed=_only(before, after.images.keys()),
    )


def _only(lock: ImageLock, others: Iterable[str]) -> Mapping[str, LockedImage]:
    left_out = set(others)
    return {name: image for name, image in sorted(lock.images.items()) if name not in left_out}


def _checksum(content: Mapping[str, Any]) -> str:
    """The checksum of a lock's content, whatever its layout."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
