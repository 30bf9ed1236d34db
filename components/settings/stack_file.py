"""The settings of a stack, and the rules across its caches, clusters, images and secrets."""

from collections.abc import Iterator
from ipaddress import IPv4Network
from itertools import combinations
from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from .caches import AN_UPSTREAM, Caches
from .clusters import Cluster
from .images import Images
from .mistakes import Mistake
from .model import EACH, Context, Rules, right
from .secret_rules import secret_rules
from .secrets import Secrets
from .values import ClusterName, Name, NullIsEmpty


class StackSettings(Secrets):
    """The settings of a stack; the keys of its file have the project's name before them."""

    caches: Caches | None = Field(default=None, description="The caches of the stack")
    clusters: Annotated[dict[ClusterName, Annotated[Cluster, NullIsEmpty]], EACH] = Field(
        default={}, description="The local Talos clusters of the stack, by name"
    )
    images: Images | None = Field(
        default=None, description="Images to pull through the caches before clusters are created"
    )
    mirrors_from: Name | None = Field(
        default=None,
        description="Name of the stack whose caches the clusters use, instead of caches of its own",
    )
    _stack: str = PrivateAttr(default="")

    def model_post_init(self, context: Any, /) -> None:
        """Keep the stack's name, which is not a key of the file."""
        self._stack = (context or Context()).stack

    @property
    def stack(self) -> str:
        """The stack's name."""
        return self._stack

    @property
    def secrets(self) -> Secrets:
        """The secrets alone."""
        return Secrets(**{name: getattr(self, name) for name in Secrets.model_fields})

    def rules(self, context: Context) -> Rules:
        """The rules across the keys of a stack file."""
        return (
            *super().rules(context),
            self._has_caches_or_clusters(),
            self._has_one_source_of_mirrors(),
            self._networks_do_not_overlap(),
            self._mirrors_are_cached(),
            *secret_rules(lambda: self.caches, self, ("caches",)),
        )

    def _has_caches_or_clusters(self) -> Iterator[Mistake]:
        if self.caches is not None:
            return
        if "clusters" not in self.model_fields_set:
            yield Mistake(("caches", "upstreams"), f"found none; allowed: {AN_UPSTREAM}")
        elif self.images is not None:
            yield Mistake(("images",), "found without caches; allowed: only with caches")

    def _has_one_source_of_mirrors(self) -> Iterator[Mistake]:
        if self.caches is not None and self.mirrors_from is not None:
            text = "found beside caches; allowed: only in a stack without caches of its own"
            yield Mistake(("mirrorsFrom",), text)

    def _networks_do_not_overlap(self) -> Iterator[Mistake]:
        networks = {name: IPv4Network(cidr) for name, cidr in right(self.clusters, "cidr").items()}
        for (first, one), (second, other) in combinations(networks.items(), 2):
            if one.overlaps(other):
                text = f"found {other}, which overlaps {one} of {first}"
                allowed = "a network of its own, such as 10.6.0.0/24"
                yield Mistake(("clusters", second, "cidr"), f"{text}; allowed: {allowed}")

    def _mirrors_are_cached(self) -> Iterator[Mistake]:
        if self.caches is None:
            return
        upstreams = self.caches.upstreams
        for name, mirrors in right(self.clusters, "mirrors").items():
            for host in mirrors.keys() - upstreams.keys():
                text = f"found, but this stack does not cache it; allowed: {', '.join(upstreams)}"
                yield Mistake(("clusters", name, "mirrors", host), text)
