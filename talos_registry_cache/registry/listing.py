"""The images in a storage, with their platforms and attachments.

Attachments have a tag with the digest of their image (`registry.attachments`). A referrer that was
pulled by digest has that digest in its manifest, as its subject.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from talos_registry_cache.registry import attachments, manifests, retention
from talos_registry_cache.registry.errors import ContentError
from talos_registry_cache.registry.layout import Storage
from talos_registry_cache.registry.manifests import Digest
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.retention import NO_REQUESTS, Requests, StoredImage


@dataclass(frozen=True, slots=True)
class Listed:
    """A stored image.

    Attributes:
        image: the image.
        platforms: the platforms of which every manifest and blob is stored.
        size: the size of its stored manifests and blobs in bytes, with those of its attachments.
        attachments: how many attachments of each kind are stored.
        subject: for an attachment whose image is not stored, the digest of this image.
    """

    image: StoredImage
    platforms: tuple[str, ...]
    size: int
    attachments: Mapping[str, int]
    subject: str | None = None


class Contents:
    """The manifests and configurations in a storage; they are taken while it is read."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, bytearray] = defaultdict(bytearray)

    def take(self, digest: str, size: int, piece: bytes) -> None:
        """Take a piece of a blob, if it may be JSON."""
        if size > manifests.SIZE_LIMIT:
            return
        kept = self._kept[digest]
        if len(kept) >= size:
            # It is read once more.
            kept.clear()
        if kept or piece.startswith(b"{"):
            kept += piece

    def of(self, digest: str) -> bytes:
        """The content of a manifest or configuration; empty if there is none."""
        return bytes(self._kept.get(digest, b""))


def listed(
    storage: Storage, contents: Contents, requests: Requests = NO_REQUESTS
) -> tuple[Listed, ...]:
    """The images of a storage, sorted by name.

    Args:
        storage: the storage.
        contents: what was taken while it was read.
        requests: the requests in the log of the cache's front.
    """
    stored = sorted(retention.images(storage, requests), key=str)
    subjects = {image: _subject(image, contents) for image in stored}
    owners = [image for image in stored if subjects[image] is None]
    attached = {image: _attached(image, contents) for image in owners}
    orphans = []
    for image, subject in subjects.items():
        if subject is None:
            continue
        of = [one for one in owners if _holds(one, image.repository, subject)]
        for owner in of:
            attached[owner][attachments.REFERRER] += 1
        orphans += [] if of else [image]
    return tuple(
        Listed(
            image,
            tuple(dict.fromkeys(map(str, _platforms(image.digest, storage, contents)))),
            sum(storage.blobs[digest].size for digest in image.content),
            dict(sorted(attached.get(image, {}).items())),
            subjects[image],
        )
        for image in sorted([*owners, *orphans], key=str)
    )


def _holds(image: StoredImage, repository: str, digest: str) -> bool:
    return image.repository == repository and digest in (image.digest, *image.content)


def _subject(image: StoredImage, contents: Contents) -> str | None:
    """The digest of the image that an attachment belongs to; None for an image."""
    if named := attachments.subject(image.tag or ""):
        return named
    manifest = _parsed(contents.of(image.digest))
    return manifest.subject.digest if manifest and manifest.subject else None


def _attached(image: StoredImage, contents: Contents) -> Counter[str]:
    """How many attachments of each kind an image has under tags."""
    found = Counter[str]()
    for tag, digest in image.attachments.items():
        kind, index = attachments.kind(tag), _parsed(contents.of(digest))
        entries = index.manifests if index and kind == attachments.REFERRER else None
        found[kind] += 1 if entries is None else len(entries)
    return found


def _platforms(
    digest: str, storage: Storage, contents: Contents, depth: int = 0
) -> Iterator[Platform]:
    """The complete platforms of a manifest or index."""
    manifest = _parsed(contents.of(digest))
    if manifest is None or depth > manifests.DEPTH_LIMIT:
        return
    if manifest.manifests is None:
        platform = _configured(manifest, contents)
        if platform and _is_complete(digest, storage):
            yield platform
        return
    for entry in manifest.manifests:
        inner = _platforms(entry.digest, storage, contents, depth + 1)
        if entry.platform is None:
            yield from inner
        elif not entry.is_attestation and _is_complete(entry.digest, storage):
            yield entry.platform


def _is_complete(digest: str, storage: Storage) -> bool:
    blob = storage.blobs.get(digest)
    return blob is not None and all(part in storage.blobs for part in blob.refers_to)


def _configured(manifest: "_Manifest", contents: Contents) -> Platform | None:
    """The platform in the configuration of an image."""
    if manifest.config is None or manifest.config.media_type not in manifests.CONFIGS:
        return None
    try:
        return manifests.platform_of(contents.of(manifest.config.digest))
    except ContentError:
        return None


def _parsed(content: bytes) -> "_Manifest | None":
    try:
        manifests.check_values(content)
        return _MANIFEST.validate_json(content)
    except (ContentError, ValidationError):
        return None


@dataclass(frozen=True, slots=True)
class _Part:
    """What matters of a descriptor."""

    digest: Digest
    media_type: Annotated[str, Field(alias="mediaType")] = ""
    platform: Platform | None = None
    annotations: Mapping[str, str] | None = None

    @property
    def is_attestation(self) -> bool:
        """Whether it is an attestation in the index of an image."""
        return manifests.is_attestation(
            manifests.Descriptor(
                self.media_type, self.digest, 0, self.platform, self.annotations or {}
            )
        )


@dataclass(frozen=True, slots=True)
class _Manifest:
    """What matters of a manifest, or of an index, which has manifests."""

    schema_version: Annotated[Literal[2], Field(alias="schemaVersion")]
    config: _Part | None = None
    manifests: tuple[_Part, ...] | None = None
    subject: _Part | None = None


_MANIFEST = TypeAdapter(_Manifest)
