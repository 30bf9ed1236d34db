"""Where a cache keeps what it has cached in an object store (S3), and how it is read and changed.

The layout is that of a volume, below the folder of the cache; see `registry.layout`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import chain
from threading import Event, Lock
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from talos_registry_cache.registry import interruptible
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.layout import (
    Entry,
    OnPiece,
    Reading,
    Storage,
    Upload,
    ignore,
    tags_in,
)
from talos_registry_cache.registry.s3_location import Keys, Place

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, ObjectStore

# A store answers one request after a while, and many at once.
AT_ONCE = 16
DELETED_AT_ONCE = 1000
PIECE = 1 << 20
ANSWERS_WITHIN = timedelta(seconds=30)
CONNECTS_WITHIN = timedelta(seconds=5)
# The whole of one object, which may be a large layer over a slow link.
READS_WITHIN = timedelta(hours=1)
TRIES_FOR = timedelta(seconds=20)


class StoreError(RegistryError):
    """An object store cannot be read or changed."""


def opened(place: Place, keys: Keys) -> "ObjectStore":
    """The objects of a place; the store is not asked yet."""
    client: ClientConfig = {
        "allow_http": True,
        "connect_timeout": CONNECTS_WITHIN,
        "read_timeout": ANSWERS_WITHIN,
        "timeout": READS_WITHIN,
    }
    if place.ca:
        client["root_certificate"] = place.ca
    return S3Store(
        place.bucket,
        prefix=place.folder,
        region=place.region,
        endpoint=place.url.removesuffix(f"/{place.bucket}") if place.path_style else place.url,
        virtual_hosted_style_request=not place.path_style,
        access_key_id=keys.access,
        secret_access_key=keys.secret,
        client_options=client,
        retry_config={"max_retries": 3, "retry_timeout": TRIES_FOR},
    )


def read(
    store: "ObjectStore",
    on_piece: OnPiece = ignore,
    *,
    folders: Iterable[str] = ("",),
    unfinished: Iterable[Upload] = (),
    in_turn: bool = False,
    trusting: bool = False,
) -> Storage:
    """Read all that is stored.

    Args:
        store: the objects of a cache.
        on_piece: is given all content, by one thread at a time.
        folders: what is read; all where they are left out.
        unfinished: uploads that are no objects yet.
        in_turn: whether all pieces of one content have to come one after the other; else several
            contents are read at once.
        trusting: whether what is too large for a manifest is not read.

    Raises:
        StoreError: it cannot be read.
    """
    lock, ended = Lock(), Event()

    def one_by_one(digest: str, size: int, piece: bytes) -> None:
        with lock:
            if ended.is_set():
                raise StoreError("reading was given up")
            on_piece(digest, size, piece)

    reading = Reading(one_by_one, trusting=trusting)

    def take(entry: Entry) -> None:
        # What has gone since it was listed is not there.
        with suppress(FileNotFoundError):
            reading.take(entry)

    pool = ThreadPoolExecutor(max_workers=1 if in_turn else AT_ONCE)
    try:
        with _explained("read"):
            entries = chain.from_iterable(_entries(store, one) for one in folders)
            for _ in interruptible.call(lambda: pool.map(take, entries)):
                pass
    finally:
        # After an error or an interruption, nobody waits for what is on its way.
        ended.set()
        pool.shutdown(wait=False, cancel_futures=True)
    return reading.storage(unfinished)


def tags(store: "ObjectStore") -> list[tuple[str, str]]:
    """The repositories and tags that are stored.

    Raises:
        StoreError: it cannot be listed.
    """
    with _explained("list"):
        return interruptible.call(lambda: tags_in(one["path"] for one in _listed(store)))


def size(store: "ObjectStore") -> int:
    """What all objects take, in bytes.

    Raises:
        StoreError: it cannot be listed.
    """
    with _explained("list"):
        return interruptible.call(lambda: sum(one["size"] for one in _listed(store)))


def remove(store: "ObjectStore", folders: Sequence[str]) -> None:
    """Remove all objects below folders, one folder after the other; safe to repeat.

    Raises:
        StoreError: one cannot be removed.
    """
    with _explained("change"):
        paths = interruptible.call(lambda: _below(store, folders))
        for start in range(0, len(paths), DELETED_AT_ONCE):
            some = paths[start : start + DELETED_AT_ONCE]
            interruptible.call(partial(obstore.delete, store, some))


def _below(store: "ObjectStore", folders: Sequence[str]) -> list[str]:
    """The objects below folders, one folder after the other."""
    order = {folder: number for number, folder in enumerate(folders)}
    found = [
        (order[folder], one["path"])
        for one in _listed(store)
        if (folder := next((above for above in _above(one["path"]) if above in order), None))
    ]
    return [path for _, path in sorted(found)]


def _listed(store: "ObjectStore", below: str = "") -> Iterator["ObjectMeta"]:
    for page in obstore.list(store, below or None):
        yield from page


def _entries(store: "ObjectStore", below: str) -> Iterator[Entry]:
    """The objects below a folder, and once each the folders that they stand for."""
    seen: set[str] = set()
    for found in _listed(store, below):
        path, modified = found["path"], int(found["last_modified"].timestamp())
        for folder in _above(path):
            if folder not in seen and folder.startswith(below):
                seen.add(folder)
                yield Entry(folder, 0, modified, None)
        yield Entry(path, found["size"], modified, _content(store, path))


def _content(store: "ObjectStore", path: str) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        for piece in obstore.get(store, path).stream(min_chunk_size=PIECE):
            yield bytes(piece)

    return pieces


def _above(path: str) -> Iterator[str]:
    """The folders that an object is in, the outermost first."""
    parts = path.split("/")
    yield from ("/".join(parts[:length]) for length in range(1, len(parts)))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        said = str(error).partition("<?xml")[0].partition("\n")[0].rstrip(": ")
        # What the store itself calls it, in the document that it answers with.
        code = re.search(r"<Code>(\w+)</Code>", str(error))
        why = f"{code[1]}: {said}" if code else said
        raise StoreError(f"cannot {what} the object store: {why}") from error
