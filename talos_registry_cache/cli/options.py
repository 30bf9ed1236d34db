"""The options that commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.stack import Reader

PASSWORD = "CACHECTL_PASSWORD"  # noqa: S105 - the variable's name

StackName = Annotated[
    str | None,
    typer.Option(
        "--stack",
        "-s",
        envvar="CACHECTL_STACK",
        metavar="NAME",
        help="The stack whose caches are meant; the only one that is up where it is left out.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Upstreams = Annotated[
    list[str] | None,
    typer.Option(
        "--upstream",
        "-u",
        metavar="HOST",
        help="Only the cache of this registry, such as docker.io; may be repeated.",
    ),
]
Images = Annotated[
    list[str] | None,
    typer.Argument(metavar="IMAGE", help="Images, such as ghcr.io/siderolabs/flannel:v0.27."),
]
ImageFiles = Annotated[
    list[Path] | None,
    typer.Option("--images", "-i", metavar="FILE", help="A list of images, one a line."),
]
TalosVersion = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help="The images that talosctl of this version lists."),
]
KubernetesVersion = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help="The same for this version of Kubernetes."),
]
PlatformName = Annotated[
    str | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH",
        help="The platform of the nodes; the engine's own where it is left out.",
    ),
]
Username = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Who asks caches that let only readers in; the password is that of {PASSWORD}, "
        "or asked for.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it; otherwise it is only shown.")]


def reader(username: str | None) -> Reader | None:
    """Who asks, with the password of the environment or of the person at the terminal.

    Raises:
        UsageError: there is no password.
    """
    if username is None:
        return None
    password = os.environ.get(PASSWORD) or typer.prompt(
        f"Password of {username}", hide_input=True, err=True, default="", show_default=False
    )
    if not password:
        raise UsageError(f"there is no password of {username}: set {PASSWORD}, or type it")
    return username, password
