"""The settings of images to warm the caches with."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticKnownError

from talos_registry_cache.registry import platforms, reference
from talos_registry_cache.registry.errors import InvalidReferenceError, PlatformError
from talos_registry_cache.registry.reference import Reference

from .mistakes import refused
from .model import Model
from .values import Text, VersionText


def _reference(value: object) -> Reference:
    if isinstance(value, Reference):
        return value
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    try:
        return reference.parse(value)
    except InvalidReferenceError as error:
        raise refused(value, "an image reference", error) from None


def _platform(value: str) -> str:
    try:
        return str(platforms.parse(value))
    except PlatformError:
        raise refused(value, "a platform such as linux/amd64 or linux/arm64") from None


ImageReference = Annotated[
    Reference, PlainValidator(_reference), WithJsonSchema({"type": "string"})
]


class TalosImages(Model):
    """The images that talosctl lists for a cluster, and the image of docker nodes."""

    talosctl: Text = Field(default="talosctl", description="Name or path of talosctl")
    talos_version: VersionText | None = Field(
        default=None, description="Version of Talos; the default is the version of talosctl"
    )
    kubernetes_version: VersionText | None = Field(
        default=None, description="Version of Kubernetes; the default is talosctl's default"
    )


class Images(Model):
    """Images that `up` pulls through the caches before it creates clusters."""

    references: list[ImageReference] = Field(
        default=[], description="Image references, such as registry.k8s.io/pause:3.10"
    )
    file: Text | None = Field(
        default=None,
        description="File beside the stack file with one reference per line; # starts a comment",
    )
    talos: TalosImages | None = Field(
        default=None, description="Images of a Talos cluster; `{}` for the defaults of talosctl"
    )
    platform: Annotated[str, AfterValidator(_platform)] | None = Field(
        default=None,
        description="Platform of the nodes; the default is that of this machine",
    )
    attachments: Literal["none", "signatures", "all"] = Field(
        default="signatures",
        description="Attachments to cache with the images, as far as the upstream has them under "
        "tags; all: also attestations and SBOMs",
    )
