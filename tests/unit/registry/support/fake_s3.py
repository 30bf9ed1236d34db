"""An object store in memory, with the methods of botocore's S3 client that the product calls."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import IncompleteReadError

from talos_registry_cache.registry.object_store import ObjectStore
from talos_registry_cache.registry.s3_location import S3Location

LOCATION = S3Location("bucket", "folder")
MODIFIED = datetime(2026, 1, 1, tzinfo=UTC)


class NotFoundError(Exception):
    """The object does not exist."""


@dataclass(frozen=True, slots=True)
class Exceptions:
    """The client's own errors."""

    NoSuchKey: type[Exception] = NotFoundError


@dataclass(frozen=True, slots=True)
class Body:
    """The content of an object; the connection may break while it is read."""

    content: bytes
    breaks_after: int

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        sent = self.content[: self.breaks_after]
        yield from (sent[at : at + size] for at in range(0, len(sent), size))
        if len(sent) < len(self.content):
            raise IncompleteReadError(actual_bytes=len(sent), expected_bytes=len(self.content))


@dataclass
class FakeClient:
    """A client of a store with some objects.

    Attributes:
        objects: contents by key.
        breaks_after: bytes after which each connection breaks.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    breaks_after: int = 1 << 30
    exceptions: Exceptions = field(default_factory=Exceptions)

    def get_paginator(self, name: str) -> "FakeClient":
        assert name == "list_objects_v2"
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> Iterator[Mapping[str, Any]]:  # noqa: N803
        del Bucket
        for key, content in sorted(self.objects.items()):
            if key.startswith(Prefix):
                one = {"Key": key, "Size": len(content), "LastModified": MODIFIED}
                yield {"Contents": [one]}
        yield {}

    def get_object(self, *, Bucket: str, Key: str, Range: str = "bytes=0-") -> Mapping[str, Body]:  # noqa: N803
        del Bucket
        if Key not in self.objects:
            raise NotFoundError
        start = int(Range.removeprefix("bytes=").removesuffix("-"))
        return {"Body": Body(self.objects[Key][start:], self.breaks_after)}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> Mapping[str, Any]:  # noqa: N803
        del Bucket
        self.objects[Key] = Body
        return {}

    def delete_objects(self, *, Bucket: str, Delete: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: N803
        del Bucket
        for one in Delete["Objects"]:
            del self.objects[one["Key"]]
        return {}


def holding(files: Mapping[str, bytes]) -> ObjectStore:
    """A store with the files of a cache, by path below its folder."""
    client: Any = FakeClient({f"{LOCATION.folder}/{path}": files[path] for path in files})
    return ObjectStore(client, LOCATION)


def paths(store: ObjectStore) -> set[str]:
    """The paths of all objects."""
    client: Any = store.client
    return {key.removeprefix(f"{LOCATION.folder}/") for key in client.objects}
