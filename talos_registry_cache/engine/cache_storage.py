"""The storage of a cache, in a volume or in an object store, behind one interface."""

from base64 import b64decode
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Protocol

from docker import DockerClient

from talos_registry_cache.engine import temporary_registry, volume
from talos_registry_cache.registry import layout, object_store
from talos_registry_cache.registry.layout import (
    BLOBS,
    REPOSITORIES,
    V2,
    Damage,
    Kind,
    OnPiece,
    Reading,
    Storage,
    StorageError,
    Tag,
    Upload,
    ignore,
    tags_in,
)
from talos_registry_cache.registry.manifests import digest_of
from talos_registry_cache.registry.object_store import ObjectStore
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location

# The size of each blob, then a tar of the manifests, which are the blobs that revisions link to,
# and of the blobs that are small enough for an image's configuration.
MANIFESTS = "manifests:\n"
SUMMARY = f"""\
exec 2>/dev/null
cd {V2} || exit 0
busybox find blobs -name data -exec busybox stat -c '%s %n' {{}} +
echo {MANIFESTS.strip()}
busybox tar -cf - $({{
  busybox find repositories -path '*/_manifests/revisions/*/link' |
  busybox sed 's|.*/\\(..\\)\\([^/]*\\)/link|blobs/sha256/\\1/\\1\\2/data|'
  busybox find blobs -name data -size -64k
}} | busybox sort -u) | busybox base64
"""
TAG_FILES = ["busybox", "find", ".", "-path", "*/_manifests/tags/*/current/link"]


class CacheStorage(Protocol):
    """The storage of a cache; methods raise `RegistryError` or `StorageError` on failure."""

    def read(
        self, on_piece: OnPiece = ignore, *, in_turn: bool = False, trusting: bool = False
    ) -> Storage:
        """Read the whole storage.

        Args:
            on_piece: receives the content of blobs and manifests, piece by piece.
            in_turn: whether all pieces of one blob must come in a row.
            trusting: whether blobs that are not manifests may be left unread, their digests taken
                from their names.
        """
        ...

    def read_again(self, folders: Collection[str]) -> Storage:
        """Read at least some folders; missing ones are left out."""
        ...

    def tags(self) -> list[tuple[str, str]]:
        """The repository and name of each tag."""
        ...

    def digests(self, tags: Iterable[Tag]) -> Mapping[Tag, str]:
        """The digests of some tags; tags that are not stored are left out."""
        ...

    def tag(self, digests: Mapping[Tag, str]) -> None:
        """Point tags to digests; safe to repeat."""
        ...

    def add(self, manifests: Mapping[Tag, bytes]) -> None:
        """Add manifests with their tags; safe to repeat."""
        ...

    def remove(self, folders: Sequence[str]) -> None:
        """Remove folders with their content, one after the other; safe to repeat."""
        ...

    def remove_uploads(self, uploads: Iterable[Upload]) -> None:
        """Remove abandoned uploads; safe to repeat."""
        ...

    def serving(self) -> AbstractContextManager[str]:
        """Run a temporary registry on it, and yield its URL; see `engine.temporary_registry`."""
        ...

    def mounting(self) -> AbstractContextManager[str | None]:
        """Run a temporary registry that mounts blobs into other repositories, and yield its URL.

        Yields None if the front of the cache does this itself, whenever a client asks.
        """
        ...


@dataclass(frozen=True, slots=True)
class InVolume:
    """The storage of a cache in a volume.

    Attributes:
        engine: the engine that has the volume.
        volume: the name of the volume.
        image: the image of the cache.
    """

    engine: DockerClient
    volume: str
    image: str

    def read(
        self, on_piece: OnPiece = ignore, *, in_turn: bool = True, trusting: bool = False
    ) -> Storage:
        """Read the whole volume, in turn: engines hand out volumes as tar streams."""
        del in_turn
        if trusting and (summary := self._summary(on_piece)):
            return summary
        with volume.mounted(self.engine, self.volume, self.image) as mounted, mounted.tar() as tar:
            return layout.read(tar, on_piece)

    def read_again(self, folders: Collection[str]) -> Storage:
        """Read all links, which are small, and the blobs in some folders."""
        blobs = [folder for folder in folders if folder.startswith(BLOBS)]
        reading = Reading()
        with volume.mounted(self.engine, self.volume, self.image) as mounted:
            for folder in (REPOSITORIES, *blobs):
                with suppress(volume.NotThereError), mounted.tar(folder) as tar:
                    layout.take(reading, tar, folder)
        return reading.storage()

    def _summary(self, on_piece: OnPiece) -> Storage | None:
        """Read links, manifests and the sizes of other blobs, whose digests are their names.

        Returns None if that was not possible: what is not read would look unused.
        """
        reading = Reading(on_piece)
        with volume.at_hand(self.engine, self.volume, self.image) as there:
            with suppress(volume.NotThereError), there.tar(REPOSITORIES) as tar:
                layout.take(reading, tar, REPOSITORIES)
            said = there.ask(["busybox", "sh", "-c", SUMMARY])
        sizes, _, manifests = said.partition(MANIFESTS)
        with suppress(ValueError, StorageError):
            layout.take(reading, BytesIO(b64decode(manifests)), BLOBS)
        read, listed = reading.storage(), layout.sizes_in(sizes.splitlines())
        for link in read.links:
            found = read.blobs if link.kind is Kind.REVISION else listed
            if link.digest and link.digest not in found:
                return None
        return replace(read, blobs={**listed, **read.blobs})

    def tags(self) -> list[tuple[str, str]]:
        """The repository and name of each tag."""
        with volume.mounted(self.engine, self.volume, self.image) as mounted:
            return tags_in(mounted.ask(TAG_FILES).splitlines())

    def digests(self, tags: Iterable[Tag]) -> Mapping[Tag, str]:
        """Read tags; none without the volume, as those of a Swarm are on its nodes."""
        paths = {layout.tag_file(tag): tag for tag in tags}
        if not volume.exists(self.engine, self.volume):
            return {}
        with volume.at_hand(self.engine, self.volume, self.image) as there:
            return {paths[path]: text for path, text in there.texts(paths).items()}

    def tag(self, digests: Mapping[Tag, str]) -> None:
        """Write tags; nothing without the volume."""
        self._write(layout.tag_links(digests))

    def add(self, manifests: Mapping[Tag, bytes]) -> None:
        """Write manifests and their tags; nothing without the volume."""
        self._write(layout.manifest_files(manifests))

    def _write(self, texts: Mapping[str, str]) -> None:
        if texts and volume.exists(self.engine, self.volume):
            with volume.at_hand(self.engine, self.volume, self.image) as there:
                there.write(texts)

    def remove(self, folders: Sequence[str]) -> None:
        """Remove folders."""
        with volume.mounted(self.engine, self.volume, self.image) as mounted:
            mounted.remove(folders)

    def remove_uploads(self, uploads: Iterable[Upload]) -> None:
        """Remove the folders of uploads."""
        self.remove([upload.path for upload in uploads])

    def serving(self) -> AbstractContextManager[str]:
        """Run a temporary registry on the volume."""
        return temporary_registry.serving(self.engine, self.volume, self.image)

    def mounting(self) -> AbstractContextManager[None]:
        """Run nothing: fronts see volumes."""
        return nullcontext()


@dataclass(frozen=True, slots=True)
class InStore:
    """The storage of a cache in an object store.

    Attributes:
        engine: the engine that runs temporary registries.
        location: its bucket and folder.
        image: the image of the cache.
        credentials: the credentials for the store; those that botocore finds if left out.
    """

    engine: DockerClient
    location: S3Location
    image: str
    credentials: S3Credentials | None = None

    def read(
        self, on_piece: OnPiece = ignore, *, in_turn: bool = False, trusting: bool = False
    ) -> Storage:
        """Read all objects, and list the unfinished uploads."""
        with self._opened() as store:
            stored = store.read(on_piece, in_turn=in_turn, trusting=trusting)
            return replace(stored, uploads=(*stored.uploads, *store.unfinished()))

    def read_again(self, folders: Collection[str]) -> Storage:
        """Read the objects below some folders."""
        with self._opened() as store:
            return store.read(folders=folders)

    def tags(self) -> list[tuple[str, str]]:
        """The repository and name of each tag."""
        with self._opened() as store:
            return store.tags()

    def digests(self, tags: Iterable[Tag]) -> Mapping[Tag, str]:
        """Read tags."""
        paths = {layout.tag_file(tag): tag for tag in tags}
        with self._opened() as store:
            return {paths[path]: text for path, text in store.texts(paths).items()}

    def tag(self, digests: Mapping[Tag, str]) -> None:
        """Write tags."""
        with self._opened() as store:
            store.write(layout.tag_links(digests))

    def add(self, manifests: Mapping[Tag, bytes]) -> None:
        """Write manifests and their tags."""
        with self._opened() as store:
            store.write(layout.manifest_files(manifests))

    def size(self) -> int:
        """The size of all objects in bytes."""
        with self._opened() as store:
            return store.size()

    def remove(self, folders: Sequence[str]) -> None:
        """Delete the objects below folders."""
        with self._opened() as store:
            store.remove(folders)

    def remove_uploads(self, uploads: Iterable[Upload]) -> None:
        """Delete the objects of uploads, and abort multipart uploads."""
        uploads = list(uploads)
        with self._opened() as store:
            store.remove([upload.path for upload in uploads if not upload.multipart])
            store.abort(upload for upload in uploads if upload.multipart)

    def serving(self) -> AbstractContextManager[str]:
        """Run a temporary registry on the objects."""
        return self._serving(writable=False)

    def mounting(self) -> AbstractContextManager[str]:
        """Run a writable temporary registry on the objects."""
        return self._serving(writable=True)

    def _serving(self, *, writable: bool) -> AbstractContextManager[str]:
        location, credentials = self.location, self.credentials
        if credentials is None:
            credentials = object_store.credentials_of_user()
            location = replace(location, ca=location.ca or object_store.ca_of_user())
        return temporary_registry.serving_objects(
            self.engine, location, credentials, self.image, writable=writable
        )

    def _opened(self) -> AbstractContextManager[ObjectStore]:
        return object_store.opened(self.location, self.credentials)


def add_lacking(held: CacheStorage, manifests: Mapping[Tag, bytes]) -> None:
    """Add the manifests that a storage does not have under their tags."""
    stored = held.digests(manifests)
    lacking = {
        tag: content for tag, content in manifests.items() if stored.get(tag) != digest_of(content)
    }
    if lacking:
        held.add(lacking)


def confirmed(held: CacheStorage, suspects: Collection[Damage]) -> list[Damage]:
    """The suspected damages that a second reading confirms.

    A cache may write while its storage is read, so that a new link seems to lead nowhere. Caches
    write a blob before the links to it, so a second reading finds the blob, unless it is missing.

    Args:
        held: the storage.
        suspects: the damages that `registry.layout.damages` found in it.
    """
    if not suspects:
        return []
    again = held.read_again({folder for suspect in suspects for folder in suspect.folders})
    places = {suspect.folders[0] for suspect in suspects}
    return [damage for damage in layout.damages(again) if damage.folders[0] in places]


def remove_damaged(held: CacheStorage, suspects: Collection[Damage]) -> list[Damage]:
    """Remove damaged content that a second reading confirms, and return those damages.

    Args:
        held: the storage; a cache that runs on it may lose what it writes meanwhile.
        suspects: the damages found by the first reading.
    """
    damages = confirmed(held, suspects)
    held.remove([folder for damage in damages for folder in damage.folders])
    return damages
