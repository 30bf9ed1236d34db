"""The mirrors that the clusters of a stack use: those of its own caches, or of another stack's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi

from components.registry_cache import RegistryCache

Urls = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Mirrors on offer.

    Attributes:
        mirrors: the URL of each as nodes reach it, by registry host.
        endpoints: the URL of each as this machine reaches it, by registry host.
        after: what has to be there before they can be used.
    """

    mirrors: pulumi.Input[Urls] = field(default_factory=dict)
    endpoints: pulumi.Input[Urls] = field(default_factory=dict)
    after: Sequence[pulumi.Resource] = ()

    def once(self, resource: pulumi.Resource) -> "Mirrors":
        """The same, to be used once something else is there as well."""
        return replace(self, after=[*self.after, resource])


NONE = Mirrors()


def of_cache(cache: RegistryCache) -> Mirrors:
    """The mirrors of the stack's own caches."""
    endpoints = {host: proxy.endpoint for host, proxy in cache.proxies.items()}
    return Mirrors(cache.mirrors, endpoints, [cache])


def of_stack(stack: str) -> Mirrors:
    """The mirrors of another stack of this project, by its outputs.

    That it has none is a `pulumi.RunError`, once they are known.
    """
    other = pulumi.StackReference(f"{pulumi.get_organization()}/{pulumi.get_project()}/{stack}")
    outputs = other.outputs.apply(lambda found: _with_caches(stack, found))
    return Mirrors(outputs.apply(lambda found: found["mirrors"]), outputs.apply(_endpoints))


def _with_caches(stack: str, outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    if "caches" not in outputs:
        raise pulumi.RunError(
            f"mirrorsFrom: found {stack}, a stack that has no caches, or is not up; "
            f"allowed: one that has, once `pulumi up --stack {stack}` is done"
        )
    return outputs


def _endpoints(outputs: Mapping[str, Any]) -> Urls:
    return {host: cache["endpoint"] for host, cache in outputs["caches"].items()}
