"""The storage of a registry: what it holds, and what of it is damaged.

A volume is read as one tar stream, which is how the engine hands out its content: on another
machine too, and without anything running beside the storage. An object store is read object by
object. The layout is the same in both, that of distribution (registry/storage/paths.go, 3.1.2):

    docker/registry/v2/
        blobs/sha256/<first two digits>/<hex>/data
        repositories/<name>/_layers/sha256/<hex>/link
        repositories/<name>/_manifests/revisions/sha256/<hex>/link
        repositories/<name>/_manifests/tags/<tag>/current/link
        repositories/<name>/_manifests/tags/<tag>/index/sha256/<hex>/link
        repositories/<name>/_uploads/<id>/…

A link is a file that holds a digest. Links of the file system are left alone.
"""

import hashlib
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from threading import Lock
from typing import Any, Protocol

from talos_registry_cache.registry import manifests
from talos_registry_cache.registry.reference import is_digest

PIECE = 1 << 20
LONGEST_LINK = 256
V2 = "docker/registry/v2"
BLOBS, REPOSITORIES = f"{V2}/blobs", f"{V2}/repositories"
_HEX = r"(?P<hex>[a-f0-9]{64})"
_TAG = r"(?P<tag>[^/]+)"
_DATA = re.compile(rf"{V2}/blobs/sha256/[a-f0-9]{{2}}/{_HEX}/data")
_UPLOAD = re.compile(rf"({V2}/repositories/.+?/_uploads/[^/]+)(/.*)?")

OnPiece = Callable[[str, int, bytes], object]
"""Is given digest and size of content, and each piece of it in order; an empty one at least."""


def ignore(_digest: str, _size: int, _piece: bytes) -> None:
    """Do nothing with a piece of content."""


class StorageError(Exception):
    """A storage could not be read to its end."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a folder of a storage.

    Attributes:
        path: where it is, below the storage's root.
        size: in bytes.
        modified: when it was written, in seconds since 1970.
        content: gives what is in it, piece by piece; None for a folder.
    """

    path: str
    size: int
    modified: int
    content: Callable[[], Iterable[bytes]] | None


class Source(Protocol):
    """What a tar stream comes from."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; none at the end."""
        ...


class Kind(Enum):
    """What a link is for; the value is its folder, below that of its repository."""

    LAYER = rf"_layers/sha256/{_HEX}"
    REVISION = rf"_manifests/revisions/sha256/{_HEX}"
    HISTORY = rf"_manifests/tags/{_TAG}/index/sha256/{_HEX}"
    TAG = rf"_manifests/tags/{_TAG}"


# A tag's folder holds others, and it is forgotten as a whole: one that stands for nothing would
# still be listed.
_LINKS = [
    (kind, re.compile(rf"(?P<folder>{V2}/repositories/(?P<repository>.+?)/{kind.value})"))
    for kind in Kind
]
_LINK_FILES = {kind: "/current/link" if kind is Kind.TAG else "/link" for kind in Kind}


@dataclass(frozen=True, slots=True)
class Blob:
    """Content that is stored, a manifest or a blob.

    Attributes:
        size: in bytes.
        found: the digest that it has; its name is the one that it should have.
        refers_to: what it names, where it is a manifest or an index.
    """

    size: int
    found: str
    refers_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """What refers to content.

    Attributes:
        kind: what it is for.
        repository: the repository that it belongs to.
        tag: the tag, for a tag and for what one has stood for; else empty.
        named: the digest that its folder is named after; a tag's is not, and has None.
        digest: the digest that it holds, or None where it holds none.
        folder: what to remove in order to forget it, below the storage's root.
        modified: when it was written, in seconds since 1970.
    """

    kind: Kind
    repository: str
    tag: str
    named: str | None
    digest: str | None
    folder: str
    modified: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether it leads to what it is named after."""
        return self.digest is not None and (self.named in {None, self.digest})


@dataclass(frozen=True, slots=True)
class Upload:
    """What is being written, or was when the writer ended.

    Attributes:
        path: its folder below the storage's root, or the object that it was to become.
        size: in bytes.
        modified: when something of it was last written, in seconds since 1970.
        multipart: the ID that an object store has given it; empty for files and objects.
    """

    path: str
    size: int
    modified: int
    multipart: str = ""


@dataclass(frozen=True, slots=True)
class Storage:
    """What a storage holds.

    Attributes:
        blobs: by digest.
        links: all that refers to them.
        uploads: all that is not content yet.
    """

    blobs: Mapping[str, Blob]
    links: tuple[Link, ...]
    uploads: tuple[Upload, ...] = ()

    @property
    def tags(self) -> Mapping[tuple[str, str], str]:
        """What each tag stands for, by repository and tag."""
        return {
            (link.repository, link.tag): link.digest
            for link in self.links
            if link.kind is Kind.TAG and link.digest
        }

    @property
    def size(self) -> int:
        """All content together, in bytes."""
        return sum(blob.size for blob in self.blobs.values())


@dataclass(frozen=True, slots=True)
class Damage:
    """Content that a storage should have, and has not or not as it was.

    Attributes:
        digest: the content, or None where not even that can be told.
        problem: what is wrong.
        repositories: those that refer to it.
        folders: what to remove, so that the next pull fetches it again. The content's folder is
            the first one: a registry never overwrites content that is there.
    """

    digest: str | None
    problem: str
    repositories: tuple[str, ...]
    folders: tuple[str, ...]


class Reading:
    """A storage while it is being read, entry by entry, in any order and by any thread."""

    def __init__(self, on_piece: OnPiece = ignore, *, trusting: bool = False) -> None:
        """Begin with nothing.

        Args:
            on_piece: is given all content that is read, piece by piece.
            trusting: whether what is too large for a manifest is not read, and is taken for what
                its name says.
        """
        self._on_piece = on_piece
        self._trusting = trusting
        self._lock = Lock()
        self._blobs: dict[str, Blob] = {}
        self._links: dict[str, Link] = {}
        self._uploads: dict[str, Upload] = {}

    def take(self, entry: Entry) -> None:
        """Take an entry, and read it where its content counts."""
        content = entry.content
        if content and (data := _DATA.fullmatch(entry.path)):
            digest = f"sha256:{data['hex']}"
            if self._trusting and entry.size > manifests.SIZE_LIMIT:
                blob = Blob(entry.size, digest)
            else:
                blob = _read_blob(content(), digest, entry.size, self._on_piece)
            with self._lock:
                self._blobs[digest] = blob
        elif upload := _UPLOAD.fullmatch(entry.path):
            self._take_upload(upload[1], entry)
        elif link := _link(entry.path):
            self._take_link(link, entry)

    def storage(self) -> Storage:
        """The storage as far as it was read."""
        links = tuple(self._links[folder] for folder in sorted(self._links))
        return Storage(self._blobs, links, tuple(self._uploads.values()))

    def _take_upload(self, folder: str, entry: Entry) -> None:
        size = entry.size if entry.content else 0
        with self._lock:
            known = self._uploads.get(folder, Upload(folder, 0, 0))
            self._uploads[folder] = replace(
                known, size=known.size + size, modified=max(known.modified, entry.modified)
            )

    def _take_link(self, link: Link, entry: Entry) -> None:
        # A folder counts until its file is seen: it is a link that holds nothing.
        with self._lock:
            self._links.setdefault(link.folder, link)
        if entry.content and entry.path == link.folder + _LINK_FILES[link.kind]:
            text = b"".join(entry.content())[:LONGEST_LINK].decode(errors="replace").strip()
            digest = text if is_digest(text) else None
            with self._lock:
                self._links[link.folder] = replace(link, digest=digest, modified=entry.modified)


def read(source: Source, on_piece: OnPiece = ignore) -> Storage:
    """Read all that is stored in a volume.

    Args:
        source: a tar stream of the registry's `rootdirectory`, in one folder of any name.
        on_piece: is given all content, piece by piece.

    Raises:
        StorageError: the stream ends too early, or is none.
    """
    reading = Reading(on_piece)
    take(reading, source)
    return reading.storage()


def take(reading: Reading, source: Source, folder: str = "") -> None:
    """Take all that a tar stream has.

    Args:
        reading: takes it.
        source: a tar stream of one folder; what that is called there does not matter.
        folder: where that folder is, below the storage's root.

    Raises:
        StorageError: the stream ends too early, or is none.
    """
    try:
        counted = _Counted(source)
        with tarfile.open(fileobj=_as_file(counted), mode="r|", bufsize=PIECE) as tar:
            for entry in tar:
                reading.take(_entry(tar, entry, folder))
                # It remembers all that it has seen otherwise.
                tar.members.clear()  # type: ignore[attr-defined]
            # Two empty blocks are its end; tarfile takes a stream without them for complete.
            if counted.drain() - tar.offset < 2 * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("unexpected end of data")
    except tarfile.TarError as error:
        raise StorageError(f"the storage cannot be read to its end: {error}") from error


def damages(storage: Storage) -> Iterator[Damage]:
    """What is damaged or gone, or looks like that because it was written during the reading.

    Content is read before what refers to it, so that a newer link leads to nothing. See
    `engine.cache_storage.confirmed`.
    """
    links: defaultdict[str, list[Link]] = defaultdict(list)
    for link in storage.links:
        if link.is_sound and link.digest:
            links[link.digest].append(link)
        else:
            problem = f"its link holds {link.digest or 'no digest'}"
            yield Damage(link.named, problem, (link.repository,), (link.folder,))
    for digest, blob in storage.blobs.items():
        if blob.found != digest:
            yield _damage(digest, f"its content has the digest {blob.found}", links)
    for digest in links:
        if digest not in storage.blobs:
            yield _damage(digest, "its content is gone", links)


def left_behind(storage: Storage, before: float) -> tuple[Upload, ...]:
    """The uploads that nobody goes on with.

    Args:
        storage: what there is.
        before: those are meant of which nothing was written since then, in seconds since 1970.
    """
    return tuple(upload for upload in storage.uploads if upload.modified < before)


def blob_folder(digest: str) -> str:
    """Where content is stored, below the storage's root."""
    name = digest.removeprefix("sha256:")
    return f"{V2}/blobs/sha256/{name[:2]}/{name}"


def link_file(kind: Kind, repository: str, digest: str, tag: str = "") -> str:
    """Where a link is stored, below the storage's root.

    Args:
        kind: what it is for.
        repository: the repository that it belongs to.
        digest: what it refers to.
        tag: the tag, for a tag and for what one has stood for.
    """
    folder = kind.value.replace(_HEX, digest.removeprefix("sha256:")).replace(_TAG, tag)
    return f"{V2}/repositories/{repository}/{folder}{_LINK_FILES[kind]}"


def tag_at(path: str) -> tuple[str, str] | None:
    """The repository and the tag that a file is the current link of, or None."""
    link = _link(path)
    if link and link.kind is Kind.TAG and path == link.folder + _LINK_FILES[Kind.TAG]:
        return link.repository, link.tag
    return None


def tags_in(paths: Iterable[str]) -> list[tuple[str, str]]:
    """The repositories and tags among the files of a storage."""
    found = (tag_at(path.strip().removeprefix("./")) for path in paths)
    return sorted(tag for tag in found if tag)


class _Counted:
    """A source that counts what was read of it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._count = 0

    def read(self, size: int, /) -> bytes:
        piece = self._source.read(size)
        self._count += len(piece)
        return piece

    def drain(self) -> int:
        """Read to the end; returns how many bytes there were."""
        while self.read(PIECE):
            pass
        return self._count


def _entry(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: str) -> Entry:
    path = "/".join(filter(None, (folder, entry.name.partition("/")[2])))
    if not entry.isfile():
        return Entry(path, 0, int(entry.mtime), None)
    return Entry(path, entry.size, int(entry.mtime), lambda: _content(tar, entry))


def _read_blob(pieces: Iterable[bytes], digest: str, size: int, on_piece: OnPiece) -> Blob:
    hashed, beginning = hashlib.sha256(), b""
    for piece in pieces:
        if len(beginning) < manifests.SIZE_LIMIT and (beginning or piece.startswith(b"{")):
            beginning += piece
        hashed.update(piece)
        on_piece(digest, size, piece)
    if size == 0:
        on_piece(digest, size, b"")
    refers_to = manifests.digests_in(beginning) if len(beginning) == size else ()
    return Blob(size, f"sha256:{hashed.hexdigest()}", refers_to)


def _link(path: str) -> Link | None:
    """The link that a file or folder is or belongs to, without what it holds."""
    for kind, pattern in _LINKS:
        if match := pattern.match(path):
            rest = path[match.end() :]
            if rest and not rest.startswith("/"):
                continue
            parts = match.groupdict()
            named = f"sha256:{parts['hex']}" if "hex" in parts else None
            tag = parts.get("tag", "")
            return Link(kind, parts["repository"], tag, named, None, parts["folder"])
    return None


def _damage(digest: str, problem: str, links: Mapping[str, list[Link]]) -> Damage:
    own = links.get(digest, [])
    return Damage(
        digest,
        problem,
        tuple(sorted({link.repository for link in own})),
        (blob_folder(digest), *(link.folder for link in own)),
    )


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
    content = tar.extractfile(entry)
    if content is None:
        raise StorageError(f"{entry.name} is no file")
    while piece := content.read(PIECE):
        yield piece


def _as_file(source: Source) -> Any:
    """What tarfile takes: it only ever reads from a stream."""
    return source
