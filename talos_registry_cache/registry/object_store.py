"""The content of a cache in an object store (S3), read and changed through botocore.

Below the cache's folder, the layout is that of a volume; see `registry.layout`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from talos_registry_cache.registry import files
from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.layout import (
    Entry,
    OnPiece,
    Reading,
    Storage,
    Upload,
    folders_above,
    ignore,
    tags_in,
)
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location

if TYPE_CHECKING:
    from botocore.session import Session
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import (
        GetObjectRequestTypeDef,
        MultipartUploadTypeDef,
        ObjectIdentifierTypeDef,
        ObjectTypeDef,
    )

READS_AT_ONCE = 16
# The most that one DeleteObjects request takes.
DELETES_AT_ONCE = 1000
PIECE = 1 << 20
CONNECT_TIMEOUT_S = 5
SILENCE_TIMEOUT_S = 30
TRIES = 4
_SESSION_LOCK = Lock()


class StoreError(RegistryError):
    """An object store cannot be read or changed."""


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """The objects of a cache; every method raises `StoreError` where the store refuses or fails.

    Attributes:
        client: the S3 client of botocore.
        location: the bucket and folder of the cache.
    """

    client: "S3Client"
    location: S3Location

    def read(
        self,
        on_piece: OnPiece = ignore,
        *,
        folders: Iterable[str] = ("",),
        in_turn: bool = False,
        trusting: bool = False,
    ) -> Storage:
        """Read the objects below some folders.

        Args:
            on_piece: receives all content, from one thread at a time.
            folders: the folders; everything if left out.
            in_turn: whether all pieces of one object come in a row; otherwise several objects are
                read at once.
            trusting: whether objects too large for a manifest are taken for what their names say.
        """
        lock, ended = Lock(), Event()

        def one_by_one(digest: str, size: int, piece: bytes) -> None:
            with lock:
                if ended.is_set():
                    raise StoreError("reading was given up")
                on_piece(digest, size, piece)

        reading = Reading(one_by_one, trusting=trusting)

        def take(entry: Entry) -> None:
            # An object may be deleted after it was listed.
            with suppress(self.client.exceptions.NoSuchKey):
                reading.take(entry)

        pool = ThreadPoolExecutor(max_workers=1 if in_turn else READS_AT_ONCE)
        try:
            with _explained("read", self.location):
                for _ in pool.map(take, chain.from_iterable(map(self._entries, folders))):
                    pass
        finally:
            # After an error or Ctrl-C, requests under way are not waited for.
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)
        return reading.storage()

    def tags(self) -> list[tuple[str, str]]:
        """The repository and name of each tag."""
        with _explained("list", self.location):
            return tags_in(map(self._path, self._listed()))

    def texts(self, paths: Iterable[str]) -> Mapping[str, str]:
        """The contents of small objects, by path; missing ones are left out."""
        found = {}
        with _explained("read", self.location):
            for path in paths:
                with suppress(self.client.exceptions.NoSuchKey):
                    pieces = self._content(f"{self.location.folder}/{path}")
                    found[path] = b"".join(pieces).decode()
        return found

    def write(self, texts: Mapping[str, str]) -> None:
        """Write small objects: their contents, by path below the folder of the cache."""
        with _explained("write to", self.location):
            for path, text in texts.items():
                key = f"{self.location.folder}/{path}"
                self.client.put_object(Bucket=self.location.bucket, Key=key, Body=text.encode())

    def size(self) -> int:
        """The size of all objects in bytes."""
        with _explained("list", self.location):
            return sum(found["Size"] for found in self._listed())

    def remove(self, folders: Sequence[str]) -> None:
        """Delete all objects below folders, one folder after the other; safe to repeat."""
        location = self.location
        with _explained("delete from", location):
            objects: list[ObjectIdentifierTypeDef] = [
                {"Key": f"{location.folder}/{path}"} for path in self._below(folders)
            ]
            for start in range(0, len(objects), DELETES_AT_ONCE):
                some = objects[start : start + DELETES_AT_ONCE]
                answer = self.client.delete_objects(
                    Bucket=location.bucket, Delete={"Objects": some, "Quiet": True}
                )
                for error in answer.get("Errors", ()):
                    raise StoreError(
                        f"cannot delete {error.get('Key')} from {location}: {error.get('Message')}"
                    )

    def unfinished(self) -> tuple[Upload, ...]:
        """Multipart uploads that were not completed.

        They are no objects, so listing objects leaves them out. They take room until somebody
        aborts them, which distribution never does for uploads of an earlier process.
        """
        with _explained("list the unfinished uploads of", self.location):
            # MinIO takes a prefix for the whole key, so all uploads are listed.
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.location.bucket
            )
            found = [one for page in pages for one in page.get("Uploads", ())]
            return tuple(
                Upload(
                    path=self._path(one),
                    size=self._uploaded(one),
                    modified=int(one["Initiated"].timestamp()),
                    multipart=one["UploadId"],
                )
                for one in found
                if one["Key"].startswith(f"{self.location.folder}/")
            )

    def abort(self, uploads: Iterable[Upload]) -> None:
        """Abort multipart uploads, which deletes their parts; safe to repeat."""
        with _explained("abort uploads to", self.location):
            for upload in uploads:
                with suppress(self.client.exceptions.NoSuchUpload):
                    self.client.abort_multipart_upload(
                        Bucket=self.location.bucket,
                        Key=f"{self.location.folder}/{upload.path}",
                        UploadId=upload.multipart,
                    )

    def _uploaded(self, upload: "MultipartUploadTypeDef") -> int:
        """The size of an upload's parts in bytes; 0 if it has ended meanwhile."""
        pages = self.client.get_paginator("list_parts").paginate(
            Bucket=self.location.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
        )
        with suppress(self.client.exceptions.NoSuchUpload):
            return sum(part["Size"] for page in pages for part in page.get("Parts", ()))
        return 0

    def _below(self, folders: Sequence[str]) -> list[str]:
        """The paths below folders, in the order of the folders."""
        order = {folder: number for number, folder in enumerate(folders)}
        found = [
            (order[folder], path)
            for path in map(self._path, self._listed())
            if (folder := next((above for above in folders_above(path) if above in order), None))
        ]
        return [path for _, path in sorted(found)]

    def _listed(self, below: str = "") -> Iterator["ObjectTypeDef"]:
        prefix = "/".join((*filter(None, (self.location.folder, below)), ""))
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.location.bucket, Prefix=prefix
        )
        for page in pages:
            yield from page.get("Contents", ())

    def _entries(self, below: str) -> Iterator[Entry]:
        """The objects below a folder, and once each the folders that contain them."""
        seen: set[str] = set()
        for found in self._listed(below):
            path, modified = self._path(found), int(found["LastModified"].timestamp())
            for folder in folders_above(path):
                if folder not in seen and folder.startswith(below):
                    seen.add(folder)
                    yield Entry(folder, 0, modified, None)
            yield Entry(path, found["Size"], modified, partial(self._content, found["Key"]))

    def _content(self, key: str) -> Iterator[bytes]:
        """The content of an object; a broken transfer is resumed where it broke."""
        from botocore.exceptions import (  # noqa: PLC0415 - slow, and needed for S3 only
            IncompleteReadError,
            ReadTimeoutError,
            ResponseStreamingError,
        )

        done = 0
        for tries_left in reversed(range(TRIES)):
            wanted: GetObjectRequestTypeDef = {"Bucket": self.location.bucket, "Key": key}
            # An empty object has no ranges.
            if done:
                wanted["Range"] = f"bytes={done}-"
            try:
                answer = self.client.get_object(**wanted)
                for piece in answer["Body"].iter_chunks(PIECE):
                    done += len(piece)
                    yield piece
            except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                if not tries_left:
                    raise
            else:
                return

    def _path(self, found: "ObjectTypeDef | MultipartUploadTypeDef") -> str:
        return found["Key"].removeprefix(f"{self.location.folder}/")


@contextmanager
def opened(location: S3Location, credentials: S3Credentials | None = None) -> Iterator[ObjectStore]:
    """Open the objects of a cache; the store is not asked yet.

    Args:
        location: the bucket and folder of the cache.
        credentials: the credentials; those that botocore finds on this machine if left out.

    Raises:
        StoreError: there are no credentials, or botocore's configuration is invalid.
    """
    from botocore.config import Config  # noqa: PLC0415 - see `_session`

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=SILENCE_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        max_pool_connections=READS_AT_ONCE,
        s3={"addressing_style": "path" if location.path_style else "virtual"},
        # The location says which store it is in, whatever AWS_ENDPOINT_URL says.
        ignore_configured_endpoint_urls=True,  # type: ignore[call-arg] # not in botocore-stubs
        # Stores other than Amazon's may not know its newer checksums; digests are checked here.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with NamedTemporaryFile("w", suffix=".pem") as authority:
        authority.write(location.ca or "")
        authority.flush()
        with _explained("open", location), _SESSION_LOCK:
            client: Any = _session(credentials).create_client(
                "s3",
                region_name=location.region,
                endpoint_url=location.endpoint,
                # With None, botocore trusts its own CAs, or those of AWS_CA_BUNDLE.
                verify=authority.name if location.ca else None,
                config=config,
            )
        try:
            yield ObjectStore(client, location)
        finally:
            client.close()


def credentials_of_user() -> S3Credentials:
    """The credentials that botocore finds on this machine, as they are now.

    Raises:
        StoreError: there are none, or botocore's configuration is invalid.
    """
    with _explained("use", "the credentials for the object store"):
        found: Any = _session(None).get_credentials()
        frozen = found.get_frozen_credentials()
    return S3Credentials(frozen.access_key, frozen.secret_key, frozen.token)


def ca_of_user() -> str | None:
    """The CA certificates (PEM) that its configuration trusts object stores by, or None.

    Raises:
        StoreError: they cannot be read.
    """
    path = _session(None).get_config_variable("ca_bundle")
    if not path:
        return None
    try:
        return files.read_text(Path(path), files.SMALL_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {path}, which AWS_CA_BUNDLE names: {error}") from None


@cache
def _session(credentials: S3Credentials | None) -> "Session":
    """One session for all stores, since creating one is slow; it is not thread-safe."""
    # Takes 0.3 s, which commands on volumes do not need to spend.
    from botocore.session import Session  # noqa: PLC0415

    session = Session()
    if credentials:
        session.set_credentials(
            credentials.access_key, credentials.secret_key, credentials.session_token
        )
    elif session.get_credentials() is None:
        raise StoreError(
            "found no credentials for the object store; allowed: AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or a profile that AWS_PROFILE names"
        )
    return session


@contextmanager
def _explained(what: str, where: object) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - see `_session`

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StoreError(f"cannot {what} {where}: {error}") from error
