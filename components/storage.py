"""Where a cache keeps what it has cached, as its process sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import urlsplit

import pulumi
import pulumi_docker as docker

from components import labels as label
from components.private_files import FOLDER, PrivateFile
from components.settings.secrets import S3Keys
from components.settings.storage import S3Storage

FOLDER_OF_VOLUME = "/var/lib/registry"
KEYS_FILE = "s3-keys"


@dataclass(frozen=True, slots=True)
class Stored:
    """A place that is there.

    Attributes:
        name: what the stack tells of it: the volume's name, or the place in an object store.
        volumes: the volume to mount, or none.
        environment: what the registry has to be told.
    """

    name: pulumi.Output[str]
    volumes: Sequence[pulumi.Output[str]] = ()
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
    """

    volume: str
    on_destroy: Literal["keep", "delete"]

    def declare(self, name: str, labels: Mapping[str, str], parent: pulumi.Resource) -> Stored:
        """Declare the volume."""
        volume = docker.Volume(
            f"{name}-storage",
            name=self.volume,
            labels=label.inputs(labels),
            opts=pulumi.ResourceOptions(
                parent=parent,
                retain_on_delete=self.on_destroy == "keep",
                # Those of a volume that was there before; else it would be replaced at every `up`.
                ignore_changes=["driverOpts"],
            ),
        )
        return Stored(volume.name, [volume.name])


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
        url = f"s3://{self.settings.bucket}/{self.folder}"
        return Stored(pulumi.Output.from_input(url), environment=self._environment())

    def _environment(self) -> Mapping[str, str]:
        settings = self.settings
        variables = {
            "REGISTRY_STORAGE": "s3",
            "REGISTRY_STORAGE_S3_BUCKET": settings.bucket,
            "REGISTRY_STORAGE_S3_REGION": settings.region,
            "REGISTRY_STORAGE_S3_ROOTDIRECTORY": f"/{self.folder}",
            "REGISTRY_STORAGE_S3_FORCEPATHSTYLE": _yaml(settings.path_style),
            # Clients may not reach the store.
            "REGISTRY_STORAGE_REDIRECT": "{disable: true}",
            # Else a store that is away would stop what the upstream can still answer.
            "REGISTRY_HEALTH_STORAGEDRIVER_ENABLED": "false",
            # Where Amazon's library looks for keys that nobody has given it.
            "AWS_SHARED_CREDENTIALS_FILE": f"{FOLDER}/{KEYS_FILE}",
        }
        if settings.endpoint:
            variables["REGISTRY_STORAGE_S3_REGIONENDPOINT"] = settings.endpoint
            is_secure = urlsplit(settings.endpoint).scheme == "https"
            variables["REGISTRY_STORAGE_S3_SECURE"] = _yaml(is_secure)
        return variables


def keys_file(keys: S3Keys) -> PrivateFile:
    """The keys of an object store, as Amazon's library reads them."""
    content = (
        "[default]\n"
        f"aws_access_key_id = {keys.access.get_secret_value()}\n"
        f"aws_secret_access_key = {keys.secret.get_secret_value()}\n"
    )
    return PrivateFile(pulumi.Output.secret(content))


def _yaml(value: bool) -> str:  # noqa: FBT001 - it is what is written
    return "true" if value else "false"
