"""The settings of the images that a stack brings into its caches ahead of any node."""

from typing import Annotated

from pydantic import AfterValidator, Field

from talos_registry_cache.registry import platforms, reference
from talos_registry_cache.registry.errors import InvalidReferenceError, PlatformError

from .mistakes import refused
from .values import Model, Text, VersionText


def _reference(value: str) -> str:
    try:
        return str(reference.parse(value))
    except InvalidReferenceError as error:
        raise refused(value, "an image reference", error) from None


def _platform(value: str) -> str:
    try:
        return str(platforms.parse(value))
    except PlatformError:
        raise refused(value, "a platform such as linux/amd64 or linux/arm64") from None


class TalosImages(Model):
    """The images that talosctl lists for a cluster, and that of docker nodes."""

    talosctl: Text = Field(default="talosctl", description="Path of talosctl, or its name on PATH")
    talos_version: VersionText | None = Field(
        default=None, description="Version of Talos; the default is talosctl's own"
    )
    kubernetes_version: VersionText | None = Field(
        default=None, description="Version of Kubernetes; the default is talosctl's own"
    )


class Images(Model):
    """Images that are in the caches before any node asks for them."""

    references: list[Annotated[str, AfterValidator(_reference)]] = Field(
        default=[], description="Image references, such as registry.k8s.io/pause:3.10"
    )
    file: Text | None = Field(
        default=None,
        description="File with one reference a line, beside the stack file; # begins a comment",
    )
    talos: TalosImages | None = Field(
        default=None, description="The images of a Talos cluster; `{}` for talosctl's defaults"
    )
    platform: Annotated[str, AfterValidator(_platform)] | None = Field(
        default=None, description="Platform of the nodes; the default is this machine's"
    )
