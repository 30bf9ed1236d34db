"""Retention: which stored images to remove, and the content that goes with them.

An image is a tag, or a manifest that was only ever pulled by digest. A cache rewrites a tag's link
whenever the tag is pulled while the upstream answers (distribution 3.1.2,
registry/proxy/proxytagservice.go), so the age of a tag is the time since its last pull.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from talos_registry_cache.registry.layout import V2, Kind, Link, Storage, blob_folder
from talos_registry_cache.registry.reference import Reference


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A stored image.

    Attributes:
        repository: its repository.
        tag: its tag, or None if it was only pulled by digest.
        digest: its digest.
        asked: time of the last pull in seconds since 1970; without a tag, of the first one.
        content: the digests of its stored manifests and blobs.
    """

    repository: str
    tag: str | None
    digest: str
    asked: int
    content: frozenset[str]

    def __str__(self) -> str:
        """REPOSITORY:TAG or REPOSITORY@DIGEST."""
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Pruning:
    """The removal of images.

    Attributes:
        images: the images to remove.
        blobs: the sizes in bytes, by digest, of blobs and manifests that no other image needs.
        folders: the folders to remove, in order: links first, then blobs.
    """

    images: tuple[StoredImage, ...]
    blobs: Mapping[str, int]
    folders: tuple[str, ...]

    @property
    def freed(self) -> int:
        """The size of the removed content in bytes."""
        return sum(self.blobs.values())


def images(storage: Storage) -> tuple[StoredImage, ...]:
    """The images of a storage, the last pulled one at the end."""
    found = []
    for repository, links in _by_repository(storage).items():
        tags = [link for link in links if link.kind is Kind.TAG and link.digest]
        revisions = [link for link in links if link.kind is Kind.REVISION and link.digest]
        named = set().union(*(_reached(storage, [link.digest or ""]) for link in tags))
        inner = {
            part
            for link in revisions
            if link.digest in storage.blobs
            for part in storage.blobs[link.digest or ""].refers_to
        }
        alone = [link for link in revisions if link.digest not in named | inner]
        for link in (*tags, *alone):
            digest = link.digest or ""
            tag = link.tag or None
            content = frozenset(_reached(storage, [digest]))
            found.append(StoredImage(repository, tag, digest, link.modified, content))
    return tuple(sorted(found, key=lambda image: (image.asked, str(image))))


def wanted(image: StoredImage, references: Iterable[Reference]) -> bool:
    """Whether one of some references, all of the image's registry, refers to it."""
    return any(
        reference.repository == image.repository
        and (reference.digest in image.content if reference.digest else reference.tag == image.tag)
        for reference in references
    )


def prune(storage: Storage, dropped: Collection[StoredImage]) -> Pruning:
    """Work out what to remove with some images.

    Content that no image refers to, such as layers of images removed earlier, goes as well.
    """
    given_up = {(image.repository, image.tag, image.digest) for image in dropped}
    kept: defaultdict[str, set[str]] = defaultdict(set)
    for image in images(storage):
        if (image.repository, image.tag, image.digest) not in given_up:
            kept[image.repository] |= image.content
    tags = {(image.repository, image.tag) for image in dropped}
    folders, linked = [], set()
    for repository, links in _by_repository(storage).items():
        goes = [link for link in links if not _stays(link, kept[repository], tags)]
        linked |= {link.digest for link in links if link not in goes}
        if len(goes) == len(links):
            # Otherwise the registry would list an empty repository.
            base = f"{V2}/repositories/{repository}"
            folders += [f"{base}/{part}" for part in ("_manifests", "_layers", "_uploads")]
        else:
            folders += [link.folder for link in goes]
    blobs = {digest: blob.size for digest, blob in storage.blobs.items() if digest not in linked}
    return Pruning(tuple(dropped), blobs, (*folders, *map(blob_folder, blobs)))


def agreed(pruning: Pruning, before: Pruning) -> Pruning:
    """What to remove according to two successive readings of a storage whose cache is running.

    Content written during one reading may seem unreferenced, but not in both.

    Args:
        pruning: the removal according to the second reading.
        before: the removal according to the first reading.
    """
    images = {(image.repository, image.tag, image.digest) for image in before.images}
    return Pruning(
        tuple(
            image
            for image in pruning.images
            if (image.repository, image.tag, image.digest) in images
        ),
        {digest: size for digest, size in pruning.blobs.items() if digest in before.blobs},
        tuple(folder for folder in pruning.folders if folder in set(before.folders)),
    )


def down_to(storage: Storage, size: int, protected: Collection[StoredImage]) -> list[StoredImage]:
    """The images to remove to get down to a size, least recently pulled first.

    Args:
        storage: the storage.
        size: the maximum size of the remaining images in bytes.
        protected: images to keep in any case.
    """
    held = images(storage)
    users: defaultdict[str, int] = defaultdict(int)
    for image in held:
        for digest in image.content:
            users[digest] += 1
    left = sum(storage.blobs[digest].size for digest in users)
    dropped = []
    for image in held:
        if left <= size:
            break
        if image in protected:
            continue
        dropped.append(image)
        for digest in image.content:
            users[digest] -= 1
            left -= 0 if users[digest] else storage.blobs[digest].size
    return dropped


def _stays(link: Link, kept: Collection[str], tags: Collection[tuple[str, str | None]]) -> bool:
    if (link.repository, link.tag) in tags:
        return False
    return link.kind is Kind.TAG or link.digest in kept


def _reached(storage: Storage, roots: Iterable[str]) -> set[str]:
    """The stored content that can be reached from some manifests, including these."""
    reached: set[str] = set()
    ahead = list(roots)
    while ahead:
        digest = ahead.pop()
        if digest in storage.blobs and digest not in reached:
            reached.add(digest)
            ahead += storage.blobs[digest].refers_to
    return reached


def _by_repository(storage: Storage) -> Mapping[str, list[Link]]:
    links: defaultdict[str, list[Link]] = defaultdict(list)
    for link in storage.links:
        links[link.repository].append(link)
    return links
