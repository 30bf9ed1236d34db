"""The mirrors that a stack's clusters use: its own caches, or those of another stack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi

from .registry_cache import RegistryCache
from .trust import OPEN, Trust

Urls = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Mirrors for clusters.

    Attributes:
        mirrors: URL at which nodes reach each mirror, by registry host; `*` is the wildcard mirror.
        endpoints: URL at which this machine reaches each mirror, by registry host.
        after: resources that must exist before the mirrors are used.
        trust: CA and user that clients need.
    """

    mirrors: pulumi.Input[Urls] = field(default_factory=dict)
    endpoints: pulumi.Input[Urls] = field(default_factory=dict)
    after: Sequence[pulumi.Resource] = ()
    trust: Trust = OPEN

    def after_images(self, images: pulumi.Resource) -> "Mirrors":
        """The same mirrors, to be used only when the caches have these images."""
        return replace(self, after=[*self.after, images])


NONE = Mirrors()


def of_cache(cache: RegistryCache) -> Mirrors:
    """The mirrors of the stack's own caches."""
    endpoints = {host: proxy.endpoint for host, proxy in cache.proxies.items()}
    return Mirrors(cache.mirrors, endpoints, [cache], cache.trust)


def of_stack(stack: str) -> Mirrors:
    """The mirrors of another stack of this project, from its outputs.

    A stack without caches is a `pulumi.RunError` as soon as its outputs are known.
    """
    other = pulumi.StackReference(f"{pulumi.get_organization()}/{pulumi.get_project()}/{stack}")
    # One by one: all outputs together are a secret if one of them is.
    caches = other.get_output("caches").apply(lambda found: _there(stack, found))
    return Mirrors(
        mirrors=pulumi.Output.all(other.get_output("mirrors"), caches).apply(lambda both: both[0]),
        endpoints=caches.apply(_endpoints),
        trust=Trust(other.get_output("ca"), other.get_output("reader")),
    )


def _there(stack: str, caches: Any) -> Mapping[str, Any]:
    if caches is None:
        raise pulumi.RunError(
            f"mirrorsFrom: found {stack}, a stack that has no caches, or is not up; "
            f"allowed: one that has, once `pulumi up --stack {stack}` is done"
        )
    found: Mapping[str, Any] = caches
    return found


def _endpoints(caches: Mapping[str, Any]) -> Urls:
    return {host: cache["endpoint"] for host, cache in caches.items()}
