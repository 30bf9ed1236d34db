"""Options that several commands have."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.stack import Reader
from talos_registry_cache.registry.attachments import Attachments

PASSWORD = "CACHECTL_PASSWORD"  # noqa: S105 - the variable's name


def _stack(text: str) -> Any:
    return typer.Option("--stack", "-s", envvar="CACHECTL_STACK", metavar="NAME", help=text)


StackName = Annotated[str | None, _stack("The stack. Default: the only one that is up.")]
EveryStack = Annotated[str | None, _stack("Only this stack. Default: every stack on the engine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Upstreams = Annotated[
    list[str] | None,
    typer.Option(
        "--upstream",
        "-u",
        metavar="HOST",
        help="Only the cache of this registry, such as docker.io. Repeatable.",
    ),
]
Images = Annotated[
    list[str] | None,
    typer.Argument(metavar="IMAGE", help="Images, such as ghcr.io/siderolabs/flannel:v0.27."),
]
ImageFiles = Annotated[
    list[Path] | None,
    typer.Option("--images", "-i", metavar="FILE", help="A list of images, one per line."),
]
TalosVersion = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION",
        help="All images of a cluster with this version of Talos, which talosctl must have.",
    ),
]
KubernetesVersion = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION", help="The same with this version of Kubernetes. Default: talosctl's."
    ),
]
Schematic = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="The schematic of the installer, from Talos 1.14 on. Default: no system extensions.",
    ),
]
Platforms = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH",
        help="A platform of the nodes, or all. Repeatable. Default: the engine's.",
    ),
]
Username = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"The user of caches that need a password, which comes from {PASSWORD} or a prompt.",
    ),
]
WantedAttachments = Annotated[
    Attachments,
    typer.Option(
        "--attachments",
        help="The attachments to fetch with the images; all: also attestations and SBOMs.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Remove; without this, only show.")]


def reader(username: str | None) -> Reader | None:
    """The user name and the password, from the environment or a prompt.

    Raises:
        UsageError: there is no password.
    """
    if username is None:
        return None
    password = os.environ.get(PASSWORD) or typer.prompt(
        f"Password of {username}", hide_input=True, err=True, default="", show_default=False
    )
    if not password:
        raise UsageError(f"no password for {username}: set {PASSWORD}, or type it")
    return username, password
