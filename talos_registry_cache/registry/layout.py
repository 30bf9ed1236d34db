"""The stored content of a registry: reading it, and finding damages.

A volume is read as one tar stream, which engines provide for remote volumes too, without a process
on the volume. An object store is read object by object. Both have distribution's layout
(registry/storage/paths.go, 3.1.2):

    docker/registry/v2/
        blobs/sha256/<first two digits>/<hex>/data
        repositories/<name>/_layers/sha256/<hex>/link
        repositories/<name>/_manifests/revisions/sha256/<hex>/link
        repositories/<name>/_manifests/tags/<tag>/current/link
        repositories/<name>/_manifests/tags/<tag>/index/sha256/<hex>/link
        repositories/<name>/_uploads/<id>/…

A link is a file that contains a digest. Symbolic links are ignored.
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

from talos_registry_cache.errors import ReportedError
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
"""Receives the digest and size of a blob with each of its pieces, at least an empty one."""


Tag = tuple[str, str]
"""A repository and a tag in it."""


def ignore(_digest: str, _size: int, _piece: bytes) -> None:
    """Ignore a piece of a blob."""


class StorageError(ReportedError):
    """A storage cannot be read completely."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder of a storage.

    Attributes:
        path: its path below the storage's root.
        size: its size in bytes.
        modified: modification time in seconds since 1970.
        content: returns the content of the file, piece by piece; None for a folder.
    """

    path: str
    size: int
    modified: int
    content: Callable[[], Iterable[bytes]] | None


class Source(Protocol):
    """The source of a tar stream."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes; none at the end."""
        ...


class Kind(Enum):
    """Kinds of links; the value matches the link's folder, below that of its repository."""

    LAYER = rf"_layers/sha256/{_HEX}"
    REVISION = rf"_manifests/revisions/sha256/{_HEX}"
    HISTORY = rf"_manifests/tags/{_TAG}/index/sha256/{_HEX}"
    TAG = rf"_manifests/tags/{_TAG}"


# A tag's folder contains that of its history. It is removed as a whole, since registries list every
# folder of a tag.
_LINKS = [
    (kind, re.compile(rf"(?P<folder>{V2}/repositories/(?P<repository>.+?)/{kind.value})"))
    for kind in Kind
]
_LINK_FILES = {kind: "/current/link" if kind is Kind.TAG else "/link" for kind in Kind}


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob or manifest.

    Attributes:
        size: its size in bytes.
        found: the digest of its content; its name is the expected one.
        refers_to: the digests that it refers to, if it is a manifest or an index.
        subject: the digest of the manifest that it belongs to, if it is a referrer.
    """

    size: int
    found: str
    refers_to: tuple[str, ...] = ()
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A link from a repository to a blob or manifest.

    Attributes:
        kind: its kind.
        repository: its repository.
        tag: the tag, for a tag and its history; otherwise empty.
        named: the digest in its folder's name, which a tag's folder does not have.
        digest: the digest that it contains, or None if invalid.
        folder: the folder to remove with the link, below the storage's root.
        modified: modification time in seconds since 1970.
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
        """Whether it contains a digest, and the one it is named after."""
        return self.digest is not None and (self.named in {None, self.digest})


@dataclass(frozen=True, slots=True)
class Upload:
    """A blob that is being written, or whose writer has ended.

    Attributes:
        path: its folder below the storage's root; for a multipart upload, the path of its object.
        size: its size so far, in bytes.
        modified: time of the last write in seconds since 1970.
        multipart: the ID of a multipart upload in an object store; otherwise empty.
    """

    path: str
    size: int
    modified: int
    multipart: str = ""


@dataclass(frozen=True, slots=True)
class Storage:
    """The content of a storage.

    Attributes:
        blobs: blobs and manifests by digest.
        links: the links to them.
        uploads: unfinished uploads.
    """

    blobs: Mapping[str, Blob]
    links: tuple[Link, ...]
    uploads: tuple[Upload, ...] = ()

    @property
    def tags(self) -> Mapping[tuple[str, str], str]:
        """The digest of each tag, by repository and tag."""
        return {
            (link.repository, link.tag): link.digest
            for link in self.links
            if link.kind is Kind.TAG and link.digest
        }

    @property
    def size(self) -> int:
        """Total size of blobs and manifests in bytes."""
        return sum(blob.size for blob in self.blobs.values())


@dataclass(frozen=True, slots=True)
class Damage:
    """A missing or damaged blob or link.

    Attributes:
        digest: the digest of the blob, or None if unknown.
        problem: the kind of damage.
        repositories: the repositories that refer to the blob.
        folders: the folders to remove so that the next pull fetches the blob again; the blob's own
            is the first one, since a registry never overwrites a blob.
    """

    digest: str | None
    problem: str
    repositories: tuple[str, ...]
    folders: tuple[str, ...]


class Reading:
    """Reads a storage entry by entry, in any order and from any thread."""

    def __init__(self, on_piece: OnPiece = ignore, *, trusting: bool = False) -> None:
        """Begin with an empty storage.

        Args:
            on_piece: receives the content of blobs and manifests, piece by piece.
            trusting: whether blobs too large for a manifest are left unread, their digests taken
                from their names.
        """
        self._on_piece = on_piece
        self._trusting = trusting
        self._lock = Lock()
        self._blobs: dict[str, Blob] = {}
        self._links: dict[str, Link] = {}
        self._uploads: dict[str, Upload] = {}

    def take(self, entry: Entry) -> None:
        """Add an entry; reads its content if that matters."""
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
        # A folder without its file counts as a link without a digest.
        with self._lock:
            self._links.setdefault(link.folder, link)
        if entry.content and entry.path == link.folder + _LINK_FILES[link.kind]:
            text = b"".join(entry.content())[:LONGEST_LINK].decode(errors="replace").strip()
            digest = text if is_digest(text) else None
            with self._lock:
                self._links[link.folder] = replace(link, digest=digest, modified=entry.modified)


def read(source: Source, on_piece: OnPiece = ignore) -> Storage:
    """Read a volume.

    Args:
        source: a tar stream of the registry's `rootdirectory`, in one folder of any name.
        on_piece: receives the content of blobs and manifests, piece by piece.

    Raises:
        StorageError: the stream is truncated or not a tar stream.
    """
    reading = Reading(on_piece)
    take(reading, source)
    return reading.storage()


def take(reading: Reading, source: Source, folder: str = "") -> None:
    """Add the entries of a tar stream.

    Args:
        reading: the reading to add to.
        source: a tar stream of one folder; its name in the stream does not matter.
        folder: the path of that folder below the storage's root.

    Raises:
        StorageError: the stream is truncated or not a tar stream.
    """
    try:
        counted = _Counted(source)
        with tarfile.open(fileobj=_as_file(counted), mode="r|", bufsize=PIECE) as tar:
            for entry in tar:
                reading.take(_entry(tar, entry, folder))
                # Otherwise tarfile keeps every entry in memory.
                tar.members.clear()  # type: ignore[attr-defined]
            # Two empty blocks end a tar; tarfile accepts a stream without them.
            if counted.drain() - tar.offset < 2 * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("unexpected end of data")
    except tarfile.TarError as error:
        raise StorageError(f"cannot read the whole storage: {error}") from error


def damages(storage: Storage) -> Iterator[Damage]:
    """Find damages, some of which may only be writes during the reading.

    Blobs are read before links, so that the blob of a new link seems to be missing; see
    `engine.cache_storage.confirmed`.
    """
    links: defaultdict[str, list[Link]] = defaultdict(list)
    for link in storage.links:
        if link.is_sound and link.digest:
            links[link.digest].append(link)
        else:
            problem = f"its link contains {link.digest or 'no digest'}"
            yield Damage(link.named, problem, (link.repository,), (link.folder,))
    for digest, blob in storage.blobs.items():
        if blob.found != digest:
            yield _damage(digest, f"its content has the digest {blob.found}", links)
    for digest in links:
        if digest not in storage.blobs:
            yield _damage(digest, "its content is missing", links)


def left_behind(storage: Storage, before: float) -> tuple[Upload, ...]:
    """The abandoned uploads.

    Args:
        storage: the storage.
        before: uploads without a write since this time (seconds since 1970) are abandoned.
    """
    return tuple(upload for upload in storage.uploads if upload.modified < before)


def blob_folder(digest: str) -> str:
    """The folder of a blob or manifest, below the storage's root."""
    name = digest.removeprefix("sha256:")
    return f"{V2}/blobs/sha256/{name[:2]}/{name}"


def folders_above(path: str) -> Iterator[str]:
    """The folders that contain a file, outermost first."""
    parts = path.split("/")
    yield from ("/".join(parts[:length]) for length in range(1, len(parts)))


def link_file(kind: Kind, repository: str, digest: str, tag: str = "") -> str:
    """The file of a link, below the storage's root.

    Args:
        kind: the kind of the link.
        repository: its repository.
        digest: the digest that it refers to.
        tag: the tag, for a tag and its history.
    """
    folder = kind.value.replace(_HEX, digest.removeprefix("sha256:")).replace(_TAG, tag)
    return f"{V2}/repositories/{repository}/{folder}{_LINK_FILES[kind]}"


def tag_file(tag: Tag) -> str:
    """The file that has the digest of a tag, below the storage's root."""
    repository, name = tag
    return link_file(Kind.TAG, repository, "", name)


def tag_links(digests: Mapping[Tag, str]) -> Mapping[str, str]:
    """The links of tags, and of their histories: their digests, by file."""
    return {
        link_file(kind, repository, digest, tag): digest
        for (repository, tag), digest in digests.items()
        # A registry lists a tag only once it has a current link.
        for kind in (Kind.HISTORY, Kind.TAG)
    }


def manifest_files(contents: Mapping[Tag, bytes]) -> Mapping[str, str]:
    """The files of manifests and their tags, by path, in the order in which they must appear."""
    blobs, revisions, digests = {}, {}, {}
    for tag, content in contents.items():
        digests[tag] = digest = manifests.digest_of(content)
        blobs[f"{blob_folder(digest)}/data"] = content.decode()
        revisions[link_file(Kind.REVISION, tag[0], digest)] = digest
    return {**blobs, **revisions, **tag_links(digests)}


def tag_at(path: str) -> tuple[str, str] | None:
    """The repository and tag whose current link a file is, or None."""
    link = _link(path)
    if link and link.kind is Kind.TAG and path == link.folder + _LINK_FILES[Kind.TAG]:
        return link.repository, link.tag
    return None


def tags_in(paths: Iterable[str]) -> list[tuple[str, str]]:
    """The repositories and tags in a list of a storage's files."""
    found = (tag_at(path.strip().removeprefix("./")) for path in paths)
    return sorted(tag for tag in found if tag)


def sizes_in(lines: Iterable[str]) -> Mapping[str, Blob]:
    """Blobs from lines with the size of a file and its path below docker/registry/v2."""
    sizes = {}
    for line in lines:
        size, _, path = line.partition(" ")
        if data := _DATA.fullmatch(f"{V2}/{path}"):
            digest = f"sha256:{data['hex']}"
            sizes[digest] = Blob(int(size), digest)
    return sizes


class _Counted:
    """A source that counts the bytes read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._count = 0

    def read(self, size: int, /) -> bytes:
        piece = self._source.read(size)
        self._count += len(piece)
        return piece

    def drain(self) -> int:
        """Read to the end; returns the total number of bytes."""
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
    manifest = beginning if len(beginning) == size else b""
    return Blob(
        size,
        f"sha256:{hashed.hexdigest()}",
        manifests.digests_in(manifest),
        manifests.subject_in(manifest),
    )


def _link(path: str) -> Link | None:
    """The link that a file or folder belongs to, without its digest."""
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
        raise StorageError(f"{entry.name} is not a file")
    while piece := content.read(PIECE):
        yield piece


def _as_file(source: Source) -> Any:
    """A source as tarfile's type; it only calls `read`."""
    return source
