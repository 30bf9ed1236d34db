"""The mirrors that the clusters of a stack use: those of its own caches, or of another stack's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi

from .registry_cache import RegistryCache
from .trust import OPEN, Trust

Urls = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Mirrors on offer.

    Attributes:
        mirrors: the URL of each as nodes reach it, by registry host.
        endpoints: the URL of each as this machine reaches it, by registry host.
        after: what has to be there before they can be used.
        trust: what lets clients in, the same for all.
    """

    mirrors: pulumi.Input[Urls] = field(default_factory=dict)
    endpoints: pulumi.Input[Urls] = field(default_factory=dict)
    after: Sequence[pulumi.Resource] = ()
    trust: Trust = OPEN

    def once(self, resource: pulumi.Resource) -> "Mirrors":
        """The same, to be used once something else is there as well."""
        return replace(self, after=[*self.after, resource])


NONE = Mirrors()


def of_cache(cache: RegistryCache) -> Mirrors:
    """The mirrors of the stack's own caches."""
    endpoints = {host: proxy.endpoint for host, proxy in cache.proxies.items()}
    return Mirrors(cache.mirrors, endpoints, [cache], cache.trust)


def of_stack(stack: str) -> Mirrors:
    """The mirrors of another stack of this project, by its outputs.

    That it has none is a `pulumi.RunError`, once they are known.
    """
    other = pulumi.StackReference(f"{pulumi.get_organization()}/{pulumi.get_project()}/{stack}")
    # One by one: all outputs together are a secret as soon as one of them is.
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
