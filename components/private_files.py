"""Private files of a cache: credentials, keys and CAs.

No environment variable, label, command line, log or `docker inspect` shows their content, and it is
encrypted in the state. On an engine they are in a volume; on a Swarm they are secrets.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from talos_registry_cache.engine import labels as label

from . import hooks

FOLDER = "/credentials"


@dataclass(frozen=True, slots=True)
class PrivateFile:
    """A file.

    Attributes:
        content: its content.
        mode: its permissions. Files belong to root, and caches run as another user.
        is_read_once: whether a registry reads it only when it starts, and so has to restart when
            the file changes.
    """

    content: pulumi.Input[str]
    mode: int = 0o444
    is_read_once: bool = False


class FilesInVolume(pulumi.ComponentResource):
    """A volume with private files, for caches to mount read-only."""

    volume: pulumi.Output[str]
    """Name of the volume."""

    read_once: pulumi.Output[str] | None
    """Digest of the files that a registry reads only when it starts; None if there are none."""

    def __init__(
        self,
        name: str,
        *,
        volume: str,
        image: pulumi.Input[str],
        labels: Mapping[str, str],
        volume_labels: Mapping[str, str],
        files: Mapping[str, PrivateFile],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare a volume with files.

        Args:
            name: name of the resource.
            volume: name of the volume, and of the container that fills it.
            image: ID of the image of that container, which never runs.
            labels: labels of that container.
            volume_labels: labels of the volume.
            files: the files, by name.
            opts: options of the resource.
        """
        # Existing states have this type: under another name, volumes would be replaced while caches
        # use them.
        super().__init__("talos-registry-cache:caches:CredentialHelper", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        made = docker.Volume(
            f"{name}-volume", name=volume, labels=label.inputs(volume_labels), opts=child
        )
        # The cache's root file system is read-only, so files have to be uploaded into a volume, and
        # through a container that mounts it: this one, which is never started.
        docker.Container(
            f"{name}-writer",
            name=volume,
            image=image,
            labels=label.inputs(labels),
            start=False,
            must_run=False,
            network_mode="none",
            log_driver="none",
            volumes=[docker.ContainerVolumeArgs(volume_name=made.name, container_path=FOLDER)],
            uploads=[
                docker.ContainerUploadArgs(
                    file=f"{FOLDER}/{file}", content=one.content, permissions=f"{one.mode:04o}"
                )
                for file, one in files.items()
            ],
            opts=pulumi.ResourceOptions.merge(
                child,
                pulumi.ResourceOptions(
                    delete_before_replace=True,
                    hooks=pulumi.ResourceHookBinding(before_create=[hooks.make_way]),
                ),
            ),
        )
        self.volume = made.name
        self.read_once = _digest([one.content for one in files.values() if one.is_read_once])
        self.register_outputs({"volume": self.volume})


class FilesInSwarm(pulumi.ComponentResource):
    """Swarm secrets with private files, for services to mount."""

    secrets: Sequence[docker.ServiceTaskSpecContainerSpecSecretArgs]
    """The secrets as a service mounts them."""

    def __init__(
        self,
        name: str,
        *,
        prefix: str,
        labels: Mapping[str, str],
        files: Mapping[str, PrivateFile],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare secrets; their names begin with a prefix, and they all have the same labels."""
        super().__init__("talos-registry-cache:caches:FilesInSwarm", name, {}, opts)
        self.secrets = [
            self._secret(f"{prefix}-{file}", f"{FOLDER}/{file}", labels, one)
            for file, one in files.items()
        ]
        self.register_outputs({})

    def _secret(
        self, name: str, path: str, labels: Mapping[str, str], file: PrivateFile
    ) -> docker.ServiceTaskSpecContainerSpecSecretArgs:
        # A secret cannot change. Pulumi ends its name with random letters, so that the next one can
        # exist beside it until no service uses the old one.
        secret = docker.Secret(
            name,
            data=pulumi.Output.secret(file.content).apply(_in_base64),
            labels=label.inputs(labels),
            opts=pulumi.ResourceOptions(parent=self),
        )
        return docker.ServiceTaskSpecContainerSpecSecretArgs(
            secret_id=secret.id,
            secret_name=secret.name,
            file_name=path,
            file_mode=file.mode,
        )


def _digest(contents: Sequence[pulumi.Input[str]]) -> pulumi.Output[str] | None:
    """A digest that is no secret: keys cannot be guessed, and everything else is public."""
    if not contents:
        return None
    digest = pulumi.Output.all(*contents).apply(
        lambda texts: hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    )
    return pulumi.Output.unsecret(digest)


def _in_base64(content: str) -> str:
    return base64.b64encode(content.encode()).decode()
