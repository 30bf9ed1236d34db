"""Retention: which stored images to remove, and the content that goes with them.

An image is a tag, or a manifest that was only ever pulled by digest. The time of its last request
is the newer of these:

- The modification time of the tag's link. A cache rewrites it whenever the tag is pulled while the
  upstream answers (distribution 3.1.2, registry/proxy/proxytagservice.go). Without a tag, it is the
  time of the first pull.
- The last successful request in the log of the cache's front. A tag that is fresh, or stale while
  the upstream is away, never reaches the registry. A request by digest counts for every image of
  its repository that contains the manifest.

The attachments of an image's manifests are part of it, and removed with it. Those whose image is
not stored are images of their own.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from talos_registry_cache.registry import pull_log
from talos_registry_cache.registry.attachments import subject
from talos_registry_cache.registry.layout import V2, Kind, Link, Storage, blob_folder
from talos_registry_cache.registry.reference import Reference

Requests = Mapping[tuple[str, str], int]
"""Time of the last request (seconds since 1970), by repository and tag or digest."""
NO_REQUESTS: Requests = {}


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A stored image.

    Attributes:
        repository: its repository.
        tag: its tag, or None if it was only pulled by digest.
        digest: its digest.
        last_request: time of the last request in seconds since 1970.
        content: the digests of its stored manifests and blobs, and of those of its attachments.
        attachments: the digests of its attachments, by tag.
    """

    repository: str
    tag: str | None
    digest: str
    last_request: int
    content: frozenset[str]
    attachments: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """REPOSITORY:TAG or REPOSITORY@DIGEST."""
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest}"

    def reference(self, registry: str) -> Reference:
        """Its reference: by tag, if it has one."""
        return Reference(registry, self.repository, self.tag, None if self.tag else self.digest)


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


@dataclass(frozen=True, slots=True)
class Policy:
    """The images to keep; without a limit, only the protected ones.

    Attributes:
        protected: references of the same registry, whose images are never removed.
        unused_since: images without a request since this time (seconds since 1970) are removed.
        max_size: the least recently requested images are removed until the size of the others is
            at most this, in bytes.
    """

    protected: Collection[Reference] = ()
    unused_since: float | None = None
    max_size: int | None = None

    def unwanted(
        self, storage: Storage, requests: Requests = NO_REQUESTS
    ) -> tuple[StoredImage, ...]:
        """The images of a storage to remove, least recently requested first."""
        held = images(storage, requests)
        users = Counter(digest for image in held for digest in image.content)
        size = sum(storage.blobs[digest].size for digest in users)
        dropped = []
        for image in held:
            if wanted(image, self.protected) or not self._exceeded(image, size):
                continue
            dropped.append(image)
            users.subtract(image.content)
            size -= sum(storage.blobs[one].size for one in image.content if not users[one])
        return tuple(dropped)

    def _exceeded(self, image: StoredImage, size: int) -> bool:
        if self.unused_since is None and self.max_size is None:
            return True
        is_unused = self.unused_since is not None and image.last_request < self.unused_since
        return is_unused or (self.max_size is not None and size > self.max_size)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The images to remove: those that references of the same registry name.

    Attributes:
        references: the references. One with a digest names all tags of this digest.
    """

    references: Collection[Reference]

    def unwanted(
        self, storage: Storage, requests: Requests = NO_REQUESTS
    ) -> tuple[StoredImage, ...]:
        """The images of a storage to remove, least recently requested first."""
        held = images(storage, requests)
        return tuple(image for image in held if any(names(one, image) for one in self.references))


@dataclass(frozen=True, slots=True)
class Untagged:
    """The images to remove: those without a tag, such as those whose tag was pushed again.

    Platforms of tagged images are no images. What has a kept image as its subject is kept.

    Attributes:
        repositories: only images of these repositories; of all of them if there are none.
    """

    repositories: Collection[str] = ()

    def unwanted(
        self, storage: Storage, requests: Requests = NO_REQUESTS
    ) -> tuple[StoredImage, ...]:
        """The images of a storage to remove, least recently requested first."""
        held = images(storage, requests)
        kept: defaultdict[str, set[str]] = defaultdict(set)
        for image in held:
            if image.tag:
                kept[image.repository] |= image.content
        alone = [image for image in held if not image.tag]
        # Signatures of SBOMs and the like: referrers may have referrers.
        while referrers := [one for one in alone if _subject(one, storage) in kept[one.repository]]:
            for image in referrers:
                kept[image.repository] |= image.content
            alone = [image for image in alone if image not in referrers]
        wanted = self.repositories
        return tuple(image for image in alone if not wanted or image.repository in wanted)


def names(reference: Reference, image: StoredImage) -> bool:
    """Whether a reference of the image's registry names exactly this image."""
    if reference.repository != image.repository:
        return False
    if reference.digest:
        return reference.digest == image.digest
    return reference.tag == image.tag


def last_requests(log: Iterable[str]) -> Requests:
    """The last successful requests for manifests in the log of a front, given as lines."""
    last: defaultdict[tuple[str, str], int] = defaultdict(int)
    # Parsing a line costs more than this search, and most lines are of blobs.
    for pull in pull_log.parse_all(line for line in log if "/manifests/" in line):
        if pull.kind is pull_log.Kind.MANIFEST and pull.status < HTTPStatus.BAD_REQUEST:
            name = pull.repository, pull.reference
            last[name] = max(last[name], int(pull.time.timestamp()))
    return dict(last)


def images(storage: Storage, requests: Requests = NO_REQUESTS) -> tuple[StoredImage, ...]:
    """The images of a storage, the last requested one at the end.

    Args:
        storage: the storage.
        requests: the requests in the log of the cache's front.
    """
    found = []
    for links in _by_repository(storage).values():
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
        attached = _attached(tags)
        belonging: set[str] = set()
        # Attachments come last, to know which ones belong to an image.
        for link in sorted((*tags, *alone), key=lambda link: bool(subject(link.tag))):
            if link.tag not in belonging:
                image = _image(storage, requests, link, attached)
                belonging |= image.attachments.keys()
                found.append(image)
    return tuple(sorted(found, key=lambda image: (image.last_request, str(image))))


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
    tags = {(image.repository, tag) for image in dropped for tag in (image.tag, *image.attachments)}
    for image in images(storage):
        if (image.repository, image.tag, image.digest) not in given_up:
            kept[image.repository] |= image.content
            tags -= {(image.repository, tag) for tag in image.attachments}
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


def _stays(link: Link, kept: Collection[str], tags: Collection[tuple[str, str | None]]) -> bool:
    if (link.repository, link.tag) in tags:
        return False
    return link.kind is Kind.TAG or link.digest in kept


def _image(
    storage: Storage,
    requests: Requests,
    link: Link,
    attached: Mapping[str, Mapping[str, str]],
) -> StoredImage:
    """The image that a tag or a revision of a repository links to, with its attachments."""
    digest = link.digest or ""
    content: set[str] = set()
    its: dict[str, str] = {}
    ahead = [digest]
    while ahead:
        more = _reached(storage, ahead) - content
        content |= more
        held = {tag: one for part in more for tag, one in attached.get(part, {}).items()}
        its |= held
        ahead = list(held.values())
    names = {link.tag, digest, *content}
    last = max(link.modified, *(requests.get((link.repository, name), 0) for name in names))
    tag = link.tag or None
    return StoredImage(link.repository, tag, digest, last, frozenset(content), its)


def _subject(image: StoredImage, storage: Storage) -> str | None:
    manifest = storage.blobs.get(image.digest)
    return manifest.subject if manifest else None


def _attached(tags: Iterable[Link]) -> Mapping[str, Mapping[str, str]]:
    """The attachments under some tags: digests by subject and tag."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for tag in tags:
        if of := subject(tag.tag):
            found[of][tag.tag] = tag.digest or ""
    return found


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
