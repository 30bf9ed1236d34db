"""CachedImages: the dynamic resource behind `ImageSet`, over `talos_registry_cache.registry`."""

from collections.abc import Mapping
from dataclasses import asdict
from types import ModuleType
from typing import Any

import pulumi
from pulumi import dynamic

from talos_registry_cache.registry.errors import RegistryError
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location

from . import dynamic_provider
from .trust import Trust

Properties = Mapping[str, Any]

# A changed password is tried at once, and not when a node needs it.
WARMED_BY = ("images", "caches", "ca", "reader", "s3Locations", "s3Credentials")


class CachedImages(dynamic.Resource, module="images", name="CachedImages"):
    """Images that are in their caches, as they are in Pulumi's state."""

    digests: pulumi.Output[Mapping[str, str]]
    """The digest of each image, by its reference."""

    def __init__(
        self,
        name: str,
        *,
        images: Mapping[str, str],
        caches: Mapping[str, Mapping[str, pulumi.Input[str]]],
        s3_locations: Mapping[str, S3Location],
        s3_credentials: S3Credentials | None,
        trust: Trust,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare images.

        Args:
            name: name of the resource.
            images: the platform of each, by its reference.
            caches: endpoint, name, storage and image of each cache, by registry host.
            s3_locations: where each cache keeps its content in an object store, by registry host;
                empty for caches in volumes.
            s3_credentials: the credentials for the object store, which Pulumi encrypts.
            trust: what lets this machine in there.
            opts: options of the resource.
        """
        inputs = {
            "stack": pulumi.get_stack(),
            "images": images,
            "caches": caches,
            "s3Locations": {host: asdict(location) for host, location in s3_locations.items()},
            "s3Credentials": s3_credentials and pulumi.Output.secret(asdict(s3_credentials)),
            **trust.inputs(),
        }
        outputs = dict.fromkeys(("digests", "missing"))
        super().__init__(CachedImagesProvider(), name, {**inputs, **outputs}, opts)


class CachedImagesProvider(dynamic.ResourceProvider):
    """Warms the caches, and looks whether all is still there."""

    serialize_as_secret_always = False

    def configure(self, req: dynamic.ConfigureRequest) -> None:
        """Prepare the provider's process."""
        dynamic_provider.prepare(req, RegistryError)

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """What has changed: nothing replaces, since forgetting an image drops nothing."""
        is_changed = any(olds.get(key) != news.get(key) for key in WARMED_BY)
        return dynamic.DiffResult(changes=is_changed or bool(_lost(olds)), replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Bring the images into the caches."""
        return dynamic.CreateResult("images", _warming().warmed(props))

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Bring in what was added, and what was lost or damaged."""
        warming = _warming()
        if lost := {text: node for text, node in news["images"].items() if text in _lost(olds)}:
            warming.remove_damaged(news, lost)
        return dynamic.UpdateResult(warming.warmed(news))

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Look in the storage of the caches whether all images are still there, and whole."""
        return dynamic.ReadResult(id_, {**props, "missing": _warming().missing(props)})


def _lost(props: Properties) -> Mapping[str, str]:
    return props.get("missing") or {}


def _warming() -> ModuleType:
    """What only the provider's own process needs: the program's start-up is not to wait for it."""
    from . import warming  # noqa: PLC0415 - see above

    return warming
