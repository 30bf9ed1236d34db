"""The storage of a cache: what its container mounts, and what it is told of an object store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from talos_registry_cache.engine.volume import STORAGE_FOLDER
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location

from .names import in_names
from .private_files import FOLDER
from .settings.storage import S3Storage

KEYS_FILE = "s3-keys"
# Blocks are mostly of 4 KiB.
MIN_FREE_BLOCKS = 256
# Fails with a message while a cache cannot store what it fetches. A file system of unknown size
# counts as large enough. After a failure, the checks come fast, as placement.PROBE describes.
WRITABLE = f"""\
fail() {{ busybox rm -f /dev/shm/up; echo "$1"; exit 1; }}
storage={STORAGE_FOLDER} v2={STORAGE_FOLDER}/docker/registry/v2
for folder in $storage $v2/blobs $v2/repositories; do
  [ ! -e $folder ] || [ -w $folder ] || fail "cannot write to $folder"
done
set -- $(busybox stat -f -c "%b %a" $storage 2>/dev/null)
[ "${{1:-0}}" = 0 ] || [ "$2" -ge {MIN_FREE_BLOCKS} ] || fail "$storage is full"
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A declared storage.

    Attributes:
        name: its name in the stack's outputs: the volume, or s3://BUCKET/FOLDER.
        volumes: the volume to mount, or none.
        probe: shell commands that fail with a message while the storage cannot be written.
        environment: environment variables for the registry.
    """

    name: pulumi.Output[str]
    volumes: Sequence[pulumi.Output[str]] = ()
    probe: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def in_object_store(location: S3Location) -> Stored:
    """The storage of a cache in an object store. The bucket exists, and its objects stay."""
    return Stored(
        pulumi.Output.from_input(str(location)),
        environment=location.environment(f"{FOLDER}/{KEYS_FILE}"),
    )


def s3_location(settings: S3Storage, host: str) -> S3Location:
    """The bucket and folder of a cache.

    Args:
        settings: the settings of the object store.
        host: the registry host of the cache.
    """
    return S3Location(
        bucket=settings.bucket,
        folder="/".join(filter(None, (settings.prefix, in_names(host)))),
        region=settings.region,
        endpoint=settings.endpoint,
        path_style=settings.path_style,
        ca=settings.ca,
    )


def s3_credentials(keys: pulumi.Output[Mapping[str, str]]) -> pulumi.Output[S3Credentials]:
    """The credentials in an object store's `accessKey` and `secretKey`."""
    return keys.apply(lambda known: S3Credentials(known["accessKey"], known["secretKey"]))
