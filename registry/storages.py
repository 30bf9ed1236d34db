"""The storages of caches, in whichever place they are: read, served and changed in the same way."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from docker import DockerClient

from registry import multipart, object_store, storage, throwaway, volume
from registry.place import Keys, Place
from registry.storage import OnPiece, Storage, Upload, ignore, tags_in

TAG_FILES = ["busybox", "find", ".", "-path", "*/_manifests/tags/*/current/link"]


class CacheStorage(Protocol):
    """The storage of a cache; whatever it cannot do is a `RegistryError` or a `StorageError`."""

    def read(
        self, on_piece: OnPiece = ignore, *, in_turn: bool = False, trusting: bool = False
    ) -> Storage:
        """Read all that is stored.

        Args:
            on_piece: is given all content that is read, piece by piece.
            in_turn: whether all pieces of one content have to come one after the other.
            trusting: whether content that is no manifest may be taken for what its name says,
                where not to read it costs less.
        """
        ...

    def tags(self) -> list[tuple[str, str]]:
        """The repositories and tags that are stored."""
        ...

    def remove(self, folders: Sequence[str]) -> None:
        """Remove folders and all that is in them, one after the other; safe to repeat."""
        ...

    def remove_uploads(self, uploads: Iterable[Upload]) -> None:
        """Remove uploads that nobody goes on with; safe to repeat."""
        ...

    def serving(self, *, writable: bool = False) -> AbstractContextManager[str]:
        """Run a throw-away registry on it, and give its URL; see `registry.throwaway`."""
        ...


@dataclass(frozen=True, slots=True)
class InVolume:
    """A storage in a volume.

    Attributes:
        engine: the engine that has the volume.
        volume: its name.
        image: the image of the cache.
    """

    engine: DockerClient
    volume: str
    image: str

    def read(
        self, on_piece: OnPiece = ignore, *, in_turn: bool = True, trusting: bool = False
    ) -> Storage:
        """Read it: the engine hands out all of it, and in turn."""
        del in_turn, trusting
        with volume.mounted(self.engine, self.volume, self.image) as mounted, mounted.tar() as tar:
            return storage.read(tar, on_piece)

    def tags(self) -> list[tuple[str, str]]:
        """The repositories and tags that are stored."""
        with volume.mounted(self.engine, self.volume, self.image) as mounted:
            return tags_in(mounted.ask(TAG_FILES).splitlines())

    def remove(self, folders: Sequence[str]) -> None:
        """Remove folders."""
        with volume.mounted(self.engine, self.volume, self.image) as mounted:
            mounted.remove(folders)

    def remove_uploads(self, uploads: Iterable[Upload]) -> None:
        """Remove the folders of uploads."""
        self.remove([upload.path for upload in uploads])

    def serving(self, *, writable: bool = False) -> AbstractContextManager[str]:
        """Run a throw-away registry on the volume."""
        return throwaway.serving(self.engine, self.volume, self.image, writable=writable)


@dataclass(frozen=True, slots=True)
class InStore:
    """A storage in an object store.

    Attributes:
        engine: the engine that runs throw-away registries.
        place: where it is.
        keys: the keys of the store.
        image: the image of the cache.
    """

    engine: DockerClient
    place: Place
    keys: Keys
    image: str

    def read(
        self, on_piece: OnPiece = ignore, *, in_turn: bool = False, trusting: bool = False
    ) -> Storage:
        """Read its objects."""
        return object_store.read(
            object_store.opened(self.place, self.keys),
            on_piece,
            unfinished=multipart.unfinished(self.place, self.keys),
            in_turn=in_turn,
            trusting=trusting,
        )

    def tags(self) -> list[tuple[str, str]]:
        """The repositories and tags that are stored."""
        return object_store.tags(object_store.opened(self.place, self.keys))

    def size(self) -> int:
        """What its objects take, in bytes."""
        return object_store.size(object_store.opened(self.place, self.keys))

    def remove(self, folders: Sequence[str]) -> None:
        """Remove objects below folders."""
        object_store.remove(object_store.opened(self.place, self.keys), folders)

    def remove_uploads(self, uploads: Iterable[Upload]) -> None:
        """Remove the objects of uploads, and abort those that are none yet."""
        uploads = list(uploads)
        self.remove([upload.path for upload in uploads if not upload.multipart])
        multipart.abort(self.place, self.keys, [one for one in uploads if one.multipart])

    def serving(self, *, writable: bool = False) -> AbstractContextManager[str]:
        """Run a throw-away registry on its objects."""
        return throwaway.serving_objects(
            self.engine, self.place, self.keys, self.image, writable=writable
        )
