"""The settings of images to warm the caches with."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticKnownError

from talos_registry_cache.registry import platforms, reference
from talos_registry_cache.registry.errors import InvalidReferenceError, PlatformError
from talos_registry_cache.registry.platforms import ALL
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.talos.images import DEFAULT_SCHEMATIC

from .mistakes import refused
from .model import Model
from .values import Schematic, Text, VersionText


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


def _platforms(value: object, handler: ValidatorFunctionWrapHandler) -> Any:
    if value in (ALL, [ALL]):
        return [ALL]
    if not isinstance(value, list) or not value:
        raise refused(value, "all, or a list of platforms such as [linux/amd64, linux/arm64]")
    return handler(value)


ImageReference = Annotated[
    Reference, PlainValidator(_reference), WithJsonSchema({"type": "string"})
]


Platforms = Annotated[
    list[Annotated[str, AfterValidator(_platform)]],
    WrapValidator(_platforms),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": ALL},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]
"""Texts that `platforms.parse_all` reads."""


class TalosImages(Model):
    """The images that talosctl lists for a cluster, the image of docker nodes and the installer."""

    talosctl: Text = Field(default="talosctl", description="Name or path of talosctl")
    talos_version: VersionText | None = Field(
        default=None, description="Version of Talos; the default is the version of talosctl"
    )
    kubernetes_version: VersionText | None = Field(
        default=None, description="Version of Kubernetes; the default is talosctl's default"
    )
    schematic: Schematic = Field(
        default=DEFAULT_SCHEMATIC,
        description=(
            "ID of the schematic of the installer from the Image Factory, which is one of the "
            "images from Talos 1.14 on; the default has no system extensions"
        ),
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
    manifests: list[Text] = Field(
        default=[],
        description="Files or folders beside the stack file with Kubernetes manifests or Compose "
        "files, whose images are added",
    )
    talos: TalosImages | None = Field(
        default=None, description="All images of a cluster; `{}` for the defaults of talosctl"
    )
    lock: Text | None = Field(
        default=None,
        description="File beside the stack file that `cachectl lock` writes: `up` fetches the "
        "digests in it, and the caches answer the tags with them",
    )
    platforms: Platforms | None = Field(
        default=None,
        description="Platforms of the nodes, such as `[linux/amd64, linux/arm64]`, or `all`; "
        "the default is that of this machine",
    )
    attachments: Literal["none", "signatures", "all"] = Field(
        default="signatures",
        description="Attachments to cache with the images; all: also attestations and SBOMs",
    )
