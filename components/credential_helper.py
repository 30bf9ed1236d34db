"""The credential command of a cache: how the registry learns a user name and password.

A registry with such a command also starts while its upstream is away: without one it asks the
upstream for its authentication scheme first, and ends when there is no answer (distribution 3.1.2,
registry/proxy/proxyregistry.go). So every cache has one, be it for nobody.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pydantic import SecretStr

from components import engine
from components import labels as label

FOLDER = "/credentials"
COMMAND = f"{FOLDER}/helper"


@dataclass(frozen=True, slots=True)
class CredentialHelperArgs:
    """What a credential helper is made from.

    Attributes:
        volume: name of the volume that holds the command, and of the container that fills it.
        image: ID of the image of that container, which never runs.
        labels: the labels of both.
        username: the user name, or None where the upstream is asked anonymously.
        password: the password.
    """

    volume: str
    image: pulumi.Input[str]
    labels: Mapping[str, str]
    username: str | None = None
    password: SecretStr | None = None


class CredentialHelper(pulumi.ComponentResource):
    """A volume that holds a docker-credential-helper, for a cache to mount read-only.

    The password is in the volume, and encrypted in the state: no environment variable, label,
    command line, log or `docker inspect` shows it.
    """

    volume: pulumi.Output[str]
    """Name of the volume."""

    def __init__(
        self, name: str, args: CredentialHelperArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("talos-registry-cache:caches:CredentialHelper", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        labels = label.inputs(args.labels)
        volume = docker.Volume(f"{name}-volume", name=args.volume, labels=labels, opts=child)
        # A file can be uploaded into a volume only, since the cache's own root is read-only, and
        # only through a container that mounts it: this one, which is never started.
        docker.Container(
            f"{name}-writer",
            name=args.volume,
            image=args.image,
            labels=labels,
            start=False,
            must_run=False,
            network_mode="none",
            log_driver="none",
            volumes=[docker.ContainerVolumeArgs(volume_name=volume.name, container_path=FOLDER)],
            uploads=[
                docker.ContainerUploadArgs(
                    file=COMMAND, content=_script(args.username, args.password), permissions="0555"
                )
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
        self.register_outputs({"volume": self.volume})


def _script(username: str | None, password: SecretStr | None) -> pulumi.Input[str]:
    """A command that answers with these credentials whatever it is asked."""
    secret = password.get_secret_value() if password else ""
    answer = json.dumps({"Username": username or "", "Secret": secret})
    script = f"#!/bin/sh\ncat >/dev/null\nprintf %s {shlex.quote(answer)}\n"
    return pulumi.Output.secret(script) if secret else script
