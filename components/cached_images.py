"""CachedImages: the dynamic resource behind `ImageSet`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi import dynamic

from . import apart, dynamic_provider

if TYPE_CHECKING:
    # Not needed in the provider's process.
    from talos_registry_cache.registry.image_lock import LockedImage

    from .registry_cache import RegistryCache

Properties = Mapping[str, Any]

# With a changed password or location, warming again shows whether it works.
WARMED_BY = (
    "images", "platforms", "attachments", "locked", "caches", "ca", "reader", "s3Locations",
    "s3Credentials",
)  # fmt: skip


class CachedImages(dynamic.Resource, module="images", name="CachedImages"):
    """Images that are in the caches, as Pulumi's state has them."""

    digests: pulumi.Output[Mapping[str, str]]
    """The digest of each image, by its reference."""

    def __init__(
        self,
        name: str,
        *,
        images: Sequence[str],
        platforms: Sequence[str],
        cache: "RegistryCache",
        attachments: str,
        locked: Mapping[str, "LockedImage"],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare images.

        Args:
            name: name of the resource.
            images: their references.
            platforms: the platforms of each, or only `all`.
            cache: the caches.
            attachments: the attachments to cache with them: none, signatures or all.
            locked: the digests of images and their attachments, by reference.
            opts: options of the resource.
        """
        credentials = cache.s3_credentials
        inputs = {
            "stack": pulumi.get_stack(),
            # Their order in the settings makes no difference.
            "images": sorted(images),
            "platforms": sorted(platforms),
            "attachments": attachments,
            "locked": {image: _written(one) for image, one in locked.items()},
            "caches": cache.caches,
            "s3Locations": {host: asdict(one) for host, one in cache.s3_locations.items()},
            "s3Credentials": credentials.apply(asdict) if credentials else None,
            **cache.trust.inputs(),
        }
        outputs = dict.fromkeys(("digests", "missing"))
        super().__init__(CachedImagesProvider(), name, {**inputs, **outputs}, opts)


class CachedImagesProvider(dynamic.ResourceProvider):
    """Warms the caches, and verifies that they still hold the images."""

    serialize_as_secret_always = False

    def configure(self, req: dynamic.ConfigureRequest) -> None:
        """Prepare the provider's process."""
        dynamic_provider.prepare(req)

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Compare inputs; nothing replaces the resource, since deleting it removes no image."""
        # State may be older than the last of them, whose default is empty.
        is_changed = any((olds.get(key) or None) != (news.get(key) or None) for key in WARMED_BY)
        return dynamic.DiffResult(changes=is_changed or bool(_lost(olds)), replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Bring the images into the caches."""
        return dynamic.CreateResult("images", apart.run(_warmed, props))

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Bring added, lost and damaged images into the caches."""
        lost = _lost(olds).keys() & set(news["images"])
        return dynamic.UpdateResult(apart.run(_warmed, news, lost))

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Verify that the caches' storages hold all images completely."""
        return dynamic.ReadResult(id_, {**props, "missing": apart.run(_missing, props)})


def _written(locked: "LockedImage") -> Properties:
    """What fetching a locked image needs of the lock."""
    indexes = {"indexes": dict(locked.indexes)} if locked.indexes else {}
    return {"digest": locked.digest, "attachments": dict(locked.attachments), **indexes}


def _lost(props: Properties) -> Mapping[str, str]:
    return props.get("missing") or {}


def _warmed(props: Properties, damaged: Collection[str] = ()) -> dict[str, Any]:
    if damaged:
        _warming().remove_damaged(props, damaged)
    outputs: dict[str, Any] = _warming().warmed(props)
    return outputs


def _missing(props: Properties) -> Mapping[str, str]:
    missing: Mapping[str, str] = _warming().missing(props)
    return missing


def _warming() -> ModuleType:
    """Import the code that only warming needs, to keep the program's start fast."""
    from . import warming  # noqa: PLC0415 - see above

    return warming
