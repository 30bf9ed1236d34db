"""Where a cache keeps what it has cached in an object store (S3), and how it is read and changed.

The layout is that of a volume, below the folder of the cache; see `registry.storage`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from registry.errors import RegistryError
from registry.storage import Entry, OnPiece, Reading, Storage, Upload, ignore, tags_in

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, ObjectStore

SCHEME = "s3://"
ENVIRONMENT = "REGISTRY_STORAGE_S3_"
DEFAULT_REGION = "us-east-1"
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


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of an object store.

    Attributes:
        access: the access key.
        secret: the secret key.
    """

    access: str = field(repr=False)
    secret: str = field(repr=False)

    @property
    def file(self) -> str:
        """The file in which Amazon's library, which is the registry's, reads them."""
        return (
            f"[default]\naws_access_key_id = {self.access}\naws_secret_access_key = {self.secret}\n"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """A place in an object store.

    Attributes:
        bucket: the bucket.
        folder: what the names of a cache's objects begin with.
        region: the region of the bucket.
        endpoint: URL of the store, or None for Amazon's.
        path_style: whether the bucket is in the path of a URL, or else in its host name.
        ca: certificate, in PEM, of the authority that the store's own is signed by, or None where
            this machine trusts it.
    """

    bucket: str
    folder: str
    region: str = DEFAULT_REGION
    endpoint: str | None = None
    path_style: bool = True
    ca: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """s3://BUCKET/FOLDER."""
        return f"{SCHEME}{self.bucket}/{self.folder}"

    @property
    def url(self) -> str:
        """URL of the bucket."""
        endpoint = urlsplit(self.endpoint or f"https://s3.{self.region}.amazonaws.com")
        if self.path_style:
            return f"{endpoint.geturl().rstrip('/')}/{self.bucket}"
        return f"{endpoint.scheme}://{self.bucket}.{endpoint.netloc}{endpoint.path.rstrip('/')}"

    def environment(self, keys_file: str) -> Mapping[str, str]:
        """What a registry has to be told to keep its content there.

        Args:
            keys_file: path of the file with the keys, where the registry sees it.
        """
        variables = {
            "REGISTRY_STORAGE": "s3",
            f"{ENVIRONMENT}BUCKET": self.bucket,
            f"{ENVIRONMENT}REGION": self.region,
            f"{ENVIRONMENT}ROOTDIRECTORY": f"/{self.folder}",
            f"{ENVIRONMENT}FORCEPATHSTYLE": _yaml(self.path_style),
            # Clients may not reach the store.
            "REGISTRY_STORAGE_REDIRECT": "{disable: true}",
            # Else a store that is away would stop what the upstream can still answer.
            "REGISTRY_HEALTH_STORAGEDRIVER_ENABLED": "false",
            # Where Amazon's library looks for keys that nobody has given it.
            "AWS_SHARED_CREDENTIALS_FILE": keys_file,
        }
        if self.endpoint:
            variables[f"{ENVIRONMENT}REGIONENDPOINT"] = self.endpoint
            variables[f"{ENVIRONMENT}SECURE"] = _yaml(urlsplit(self.endpoint).scheme == "https")
        return variables


def place_in(environment: Mapping[str, str], ca: str | None = None) -> Place | None:
    """Where a registry with an environment keeps its content; None if in no object store."""
    if environment.get("REGISTRY_STORAGE") != "s3":
        return None
    own = {
        name.removeprefix(ENVIRONMENT): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT)
    }
    return Place(
        bucket=own["BUCKET"],
        folder=own["ROOTDIRECTORY"].strip("/"),
        region=own["REGION"],
        endpoint=own.get("REGIONENDPOINT"),
        path_style=own["FORCEPATHSTYLE"] == "true",
        ca=ca,
    )


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
    unfinished: Iterable[Upload] = (),
    in_turn: bool = False,
    trusting: bool = False,
) -> Storage:
    """Read all that is stored.

    Args:
        store: the objects of a cache.
        on_piece: is given all content, by one thread at a time.
        unfinished: uploads that are no objects yet.
        in_turn: whether all pieces of one content have to come one after the other; else several
            contents are read at once.
        trusting: whether what is too large for a manifest is not read.

    Raises:
        StoreError: it cannot be read.
    """
    lock = Lock()

    def one_by_one(digest: str, size: int, piece: bytes) -> None:
        with lock:
            on_piece(digest, size, piece)

    reading = Reading(one_by_one, trusting=trusting)

    def take(entry: Entry) -> None:
        # What has gone since it was listed is not there.
        with suppress(FileNotFoundError):
            reading.take(entry)

    with (
        _explained("read"),
        ThreadPoolExecutor(max_workers=1 if in_turn else AT_ONCE) as pool,
    ):
        for _ in pool.map(take, _entries(store)):
            pass
    return reading.storage(unfinished)


def tags(store: "ObjectStore") -> list[tuple[str, str]]:
    """The repositories and tags that are stored.

    Raises:
        StoreError: it cannot be listed.
    """
    with _explained("list"):
        return tags_in(one["path"] for one in _listed(store))


def size(store: "ObjectStore") -> int:
    """What all objects take, in bytes.

    Raises:
        StoreError: it cannot be listed.
    """
    with _explained("list"):
        return sum(one["size"] for one in _listed(store))


def remove(store: "ObjectStore", folders: Sequence[str]) -> None:
    """Remove all objects below folders, one folder after the other; safe to repeat.

    Raises:
        StoreError: one cannot be removed.
    """
    order = {folder: number for number, folder in enumerate(folders)}
    with _explained("change"):
        doomed = [
            (order[folder], one["path"])
            for one in _listed(store)
            if (folder := next((above for above in _above(one["path"]) if above in order), None))
        ]
        paths = [path for _, path in sorted(doomed)]
        for start in range(0, len(paths), DELETED_AT_ONCE):
            obstore.delete(store, paths[start : start + DELETED_AT_ONCE])


def _listed(store: "ObjectStore") -> Iterator["ObjectMeta"]:
    for page in obstore.list(store):
        yield from page


def _entries(store: "ObjectStore") -> Iterator[Entry]:
    """The objects, and once each the folders that they stand for."""
    seen: set[str] = set()
    for found in _listed(store):
        path, modified = found["path"], int(found["last_modified"].timestamp())
        for folder in _above(path):
            if folder not in seen:
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


def _yaml(value: bool) -> str:  # noqa: FBT001 - it is what is written
    return "true" if value else "false"
