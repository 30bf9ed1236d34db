"""Retention: the dynamic resource that removes images which the settings do not keep."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi import dynamic

from . import apart, dynamic_provider

if TYPE_CHECKING:
    # Not needed in the provider's process.
    from .settings.retention import Retention

Properties = Mapping[str, Any]

LIMITS = ("unusedForSeconds", "maxBytes")
UNWANTED = "unwanted"
"""The images to remove: their number, and the bytes that this frees, by registry host."""


class ImageRetention(dynamic.Resource, module="caches", name="ImageRetention"):
    """The removal of images from the caches of a stack.

    It changes when there are images to remove, so that a preview shows them.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: "Retention",
        caches: pulumi.Input[Mapping[str, Any]],
        kept: Collection[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare which images are removed.

        Args:
            name: name of the resource.
            settings: the limits.
            caches: name, storage and image of each cache, by registry host.
            kept: references of the images that are never removed.
            opts: options of the resource.
        """
        inputs = {
            "stack": pulumi.get_stack(),
            "unusedForSeconds": settings.unused_for_s,
            "maxBytes": settings.max_bytes,
            "kept": sorted(kept),
            "caches": caches,
        }
        super().__init__(RetentionProvider(), name, inputs, opts)


class RetentionProvider(dynamic.ResourceProvider):
    """Looks for images to remove, and removes them."""

    serialize_as_secret_always = False

    def configure(self, req: dynamic.ConfigureRequest) -> None:
        """Prepare the provider's process."""
        dynamic_provider.prepare(req)

    def check(self, _olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Add the images to remove to the inputs, where previews show them."""
        # Importing it takes time, and the program does not need it.
        from . import retention_work  # noqa: PLC0415 - see above

        return dynamic.CheckResult({**news, UNWANTED: retention_work.unwanted(news)}, [])

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Whether images are to be removed, or the limits are others."""
        changed = any(olds.get(key) != news.get(key) for key in LIMITS)
        return dynamic.DiffResult(changes=changed or bool(news[UNWANTED]), replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Remove images."""
        return dynamic.CreateResult("retention", apart.run(_enforced, props))

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Remove images."""
        return dynamic.UpdateResult(apart.run(_enforced, news))


def _enforced(props: Properties) -> dict[str, Any]:
    from . import retention_work  # noqa: PLC0415 - see above

    retention_work.remove(props)
    return {**props, UNWANTED: {}}
