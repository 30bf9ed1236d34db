"""Where a cache keeps what it has cached, as its process sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import pulumi
import pulumi_docker as docker

from talos_registry_cache.engine import labels as label
from talos_registry_cache.engine.volume import STORAGE_FOLDER
from talos_registry_cache.registry.s3_location import Keys, Place

from .belongings import Belongings
from .private_files import FOLDER, PrivateFile
from .settings.storage import S3Storage

FOLDER_OF_VOLUME = STORAGE_FOLDER
KEYS_FILE = "s3-keys"
# Of mostly 4 KiB.
LEAST_FREE_BLOCKS = 256
# Ends with an error, and says why, while a cache cannot store what it fetches. Where the size of a
# file system cannot be told, it is not judged.
WRITABLE = f"""\
storage={FOLDER_OF_VOLUME} v2={FOLDER_OF_VOLUME}/docker/registry/v2
for folder in $storage $v2/blobs $v2/repositories; do
  [ ! -e $folder ] || [ -w $folder ] || {{ echo "cannot write to $folder"; exit 1; }}
done
set -- $(busybox stat -f -c "%b %a" $storage 2>/dev/null)
[ "${{1:-0}}" = 0 ] || [ "$2" -ge {LEAST_FREE_BLOCKS} ] || {{ echo "$storage is full"; exit 1; }}
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A place that is there.

    Attributes:
        name: what the stack tells of it: the volume's name, or the place in an object store.
        volumes: the volume to mount, or none.
        probe: shell commands that end with an error, and say why, while it cannot be written.
        environment: what the registry has to be told.
    """

    name: pulumi.Output[str]
    volumes: Sequence[pulumi.Output[str]] = ()
    probe: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


class Storage(Protocol):
    """A place to keep what a cache has cached."""

    def declare(self, name: str, labels: Mapping[str, str], parent: pulumi.Resource) -> Stored:
        """Declare what has to be there.

        Args:
            name: name of the cache's resources.
            labels: their labels.
            parent: the resource that they belong to.
        """
        ...


@dataclass(frozen=True, slots=True)
class VolumeOfEngine:
    """A volume of the engine that Pulumi talks to.

    Attributes:
        volume: its name.
        on_destroy: whether it outlives the stack.
        belongings: what is there already.
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
                # Those of a volume that was there before; else it would be replaced at every `up`.
                ignore_changes=["driverOpts"],
            ),
        )
        return Stored(volume.name, [volume.name], WRITABLE)


@dataclass(frozen=True, slots=True)
class VolumeOfNode:
    """A volume of the Swarm node that runs the cache, which makes it when it has none.

    Attributes:
        volume: its name.
    """

    volume: str

    def declare(self, name: str, labels: Mapping[str, str], parent: pulumi.Resource) -> Stored:
        """Declare nothing: the node's engine is not the one that Pulumi talks to."""
        del name, labels, parent
        volume = pulumi.Output.from_input(self.volume)
        # No probe: a Swarm would kill a cache whose disk is full, and what it could serve with it.
        return Stored(volume, [volume])


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A place in an object store.

    Attributes:
        settings: where the store is.
        folder: what the names of the cache's objects begin with.
    """

    settings: S3Storage
    folder: str

    def declare(self, name: str, labels: Mapping[str, str], parent: pulumi.Resource) -> Stored:
        """Declare nothing: the bucket is there, and its objects stay."""
        del name, labels, parent
        settings = self.settings
        place = Place(
            bucket=settings.bucket,
            folder=self.folder,
            region=settings.region,
            endpoint=settings.endpoint,
            path_style=settings.path_style,
        )
        return Stored(
            pulumi.Output.from_input(str(place)),
            environment=place.environment(f"{FOLDER}/{KEYS_FILE}"),
        )


def keys_file(keys: pulumi.Output[Mapping[str, str]]) -> PrivateFile:
    """An object store's `accessKey` and `secretKey` as AWS's shared credentials file."""
    return PrivateFile(keys.apply(lambda known: Keys(known["accessKey"], known["secretKey"]).file))
