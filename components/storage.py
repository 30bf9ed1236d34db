"""The storage of a cache, as Pulumi declares it and as the cache's container sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import pulumi
import pulumi_docker as docker

from talos_registry_cache.engine import labels as label
from talos_registry_cache.engine.volume import STORAGE_FOLDER
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location

from .belongings import Belongings
from .names import in_names
from .private_files import FOLDER, PrivateFile
from .settings.storage import S3Storage

FOLDER_OF_VOLUME = STORAGE_FOLDER
KEYS_FILE = "s3-keys"
# Blocks are mostly of 4 KiB.
MIN_FREE_BLOCKS = 256
# Fails with a message while a cache cannot store what it fetches. A file system of unknown size
# counts as large enough.
WRITABLE = f"""\
storage={FOLDER_OF_VOLUME} v2={FOLDER_OF_VOLUME}/docker/registry/v2
for folder in $storage $v2/blobs $v2/repositories; do
  [ ! -e $folder ] || [ -w $folder ] || {{ echo "cannot write to $folder"; exit 1; }}
done
set -- $(busybox stat -f -c "%b %a" $storage 2>/dev/null)
[ "${{1:-0}}" = 0 ] || [ "$2" -ge {MIN_FREE_BLOCKS} ] || {{ echo "$storage is full"; exit 1; }}
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


class Storage(Protocol):
    """A kind of storage."""

    def declare(self, name: str, labels: Mapping[str, str], parent: pulumi.Resource) -> Stored:
        """Declare the resources of the storage.

        Args:
            name: prefix of the names of the cache's resources.
            labels: their labels.
            parent: their parent resource.
        """
        ...


@dataclass(frozen=True, slots=True)
class VolumeOfEngine:
    """A volume of the engine that Pulumi talks to.

    Attributes:
        volume: the name of the volume.
        on_destroy: whether the volume is kept or deleted with the stack.
        belongings: the existing resources of the stack.
    """

    volume: str
    on_destroy: Literal["keep", "delete"]
    belongings: Belongings

    def declare(self, name: str, labels: Mapping[str, str], parent: pulumi.Resource) -> Stored:
        """Declare the volume."""
        volume = docker.Volume(
            f"{name}-storage",
            name=self.volume,
            labels=label.inputs(self.belongings.labels_of_volume(self.volume, labels)),
            opts=pulumi.ResourceOptions(
                parent=parent,
                retain_on_delete=self.on_destroy == "keep",
                # An adopted volume may have some, and would be replaced at every `up`.
                ignore_changes=["driverOpts"],
            ),
        )
        return Stored(volume.name, [volume.name], WRITABLE)


@dataclass(frozen=True, slots=True)
class VolumeOfNode:
    """A volume of the Swarm node that runs the cache; the node creates it when it is missing.

    Attributes:
        volume: the name of the volume.
    """

    volume: str

    def declare(self, name: str, labels: Mapping[str, str], parent: pulumi.Resource) -> Stored:
        """Declare nothing: the node's engine is not the one that Pulumi talks to."""
        del name, labels, parent
        volume = pulumi.Output.from_input(self.volume)
        # No probe: a Swarm kills unhealthy caches, but one with a full disk can still serve.
        return Stored(volume, [volume])


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A folder of a bucket.

    Attributes:
        location: the bucket and the folder.
    """

    location: S3Location

    def declare(self, name: str, labels: Mapping[str, str], parent: pulumi.Resource) -> Stored:
        """Declare nothing: the bucket exists, and its objects stay."""
        del name, labels, parent
        return Stored(
            pulumi.Output.from_input(str(self.location)),
            environment=self.location.environment(f"{FOLDER}/{KEYS_FILE}"),
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


def keys_file(keys: pulumi.Output[Mapping[str, str]]) -> PrivateFile:
    """An object store's `accessKey` and `secretKey` as AWS's shared credentials file."""
    return PrivateFile(
        keys.apply(lambda known: S3Credentials(known["accessKey"], known["secretKey"]).file)
    )
