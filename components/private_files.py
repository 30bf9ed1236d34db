"""The files of a cache that only it may read: credentials, keys, and whom it trusts.

No environment variable, label, command line, log or inspection shows what is in them, and the state
has it encrypted. On an engine they are in a volume, on a Swarm they are its secrets.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from talos_registry_cache.engine import labels as label

from . import engine

FOLDER = "/credentials"


@dataclass(frozen=True, slots=True)
class PrivateFile:
    """A file.

    Attributes:
        content: what is in it.
        mode: its permissions. They belong to root, and caches are another user.
        is_read_once: whether a registry reads it when it starts only, so that it has to be
            started anew when the file changes.
    """

    content: pulumi.Input[str]
    mode: int = 0o444
    is_read_once: bool = False


@dataclass(frozen=True, slots=True)
class FilesInVolumeArgs:
    """What private files on an engine are made from.

    Attributes:
        volume: name of the volume that holds them, and of the container that fills it.
        image: ID of the image of that container, which never runs.
        labels: the labels of that container.
        volume_labels: those of the volume.
        files: the files, by name.
    """

    volume: str
    image: pulumi.Input[str]
    labels: Mapping[str, str]
    volume_labels: Mapping[str, str]
    files: Mapping[str, PrivateFile]


class FilesInVolume(pulumi.ComponentResource):
    """A volume with private files, for caches to mount read-only."""

    volume: pulumi.Output[str]
    """Name of the volume."""

    read_once: pulumi.Output[str] | None
    """A digest of those that a registry reads when it starts only; None where there is none."""

    def __init__(
        self, name: str, args: FilesInVolumeArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        # The type's first name, which the states of stacks have: by another, their volumes would be
        # made anew while caches use them.
        super().__init__("talos-registry-cache:caches:CredentialHelper", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        volume = docker.Volume(
            f"{name}-volume",
            name=args.volume,
            labels=label.inputs(args.volume_labels),
            opts=child,
        )
        # A file can be uploaded into a volume only, since the cache's own root is read-only, and
        # only through a container that mounts it: this one, which is never started.
        docker.Container(
            f"{name}-writer",
            name=args.volume,
            image=args.image,
            labels=label.inputs(args.labels),
            start=False,
            must_run=False,
            network_mode="none",
            log_driver="none",
            volumes=[docker.ContainerVolumeArgs(volume_name=volume.name, container_path=FOLDER)],
            uploads=[
                docker.ContainerUploadArgs(
                    file=f"{FOLDER}/{file}", content=one.content, permissions=f"{one.mode:04o}"
                )
                for file, one in args.files.items()
            ],
            opts=pulumi.ResourceOptions.merge(
                child,
                pulumi.ResourceOptions(
                    delete_before_replace=True,
                    hooks=pulumi.ResourceHookBinding(before_create=[engine.before_container]),
                ),
            ),
        )
        self.volume = volume.name
        self.read_once = _digest([one.content for one in args.files.values() if one.is_read_once])
        self.register_outputs({"volume": self.volume})


@dataclass(frozen=True, slots=True)
class FilesInSwarmArgs:
    """What private files on a Swarm are made from.

    Attributes:
        prefix: what the names of the secrets begin with.
        labels: their labels.
        files: the files, by name.
    """

    prefix: str
    labels: Mapping[str, str]
    files: Mapping[str, PrivateFile]


class FilesInSwarm(pulumi.ComponentResource):
    """Secrets of a Swarm with private files, for services to mount."""

    secrets: Sequence[docker.ServiceTaskSpecContainerSpecSecretArgs]
    """How a service mounts them."""

    def __init__(
        self, name: str, args: FilesInSwarmArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("talos-registry-cache:caches:FilesInSwarm", name, {}, opts)
        self.secrets = [self._secret(args, file, one) for file, one in args.files.items()]
        self.register_outputs({})

    def _secret(
        self, args: FilesInSwarmArgs, file: str, one: PrivateFile
    ) -> docker.ServiceTaskSpecContainerSpecSecretArgs:
        # A secret cannot be changed, so the end of its name is left to Pulumi: another one takes
        # its place, and it is there for as long as a service uses it.
        secret = docker.Secret(
            f"{args.prefix}-{file}",
            data=pulumi.Output.secret(one.content).apply(_in_base64),
            labels=label.inputs(args.labels),
            opts=pulumi.ResourceOptions(parent=self),
        )
        return docker.ServiceTaskSpecContainerSpecSecretArgs(
            secret_id=secret.id,
            secret_name=secret.name,
            file_name=f"{FOLDER}/{file}",
            file_mode=one.mode,
        )


def _digest(contents: Sequence[pulumi.Input[str]]) -> pulumi.Output[str] | None:
    """A digest that need not be secret: keys cannot be guessed, and all else is public."""
    if not contents:
        return None
    digest = pulumi.Output.all(*contents).apply(
        lambda texts: hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    )
    return pulumi.Output.unsecret(digest)


def _in_base64(content: str) -> str:
    return base64.b64encode(content.encode()).decode()
