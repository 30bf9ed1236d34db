"""The settings of where the caches of a stack run."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from .values import LabelValue, Model, Name, by_kind


class EnginePlacement(Model):
    """Containers of one engine."""

    kind: Literal["engine"] = Field(default="engine", description="What this is: one engine")


class SwarmPlacement(Model):
    """Services of a Docker Swarm, on several hosts."""

    kind: Literal["swarm"] = Field(description="What this is: a Docker Swarm")
    node_labels: dict[Name, LabelValue] = Field(
        default={}, description="Labels that a node must have to run caches; all do without"
    )
    replicas: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = Field(
        default=None,
        description="Number of nodes that run each cache; the default is every node",
    )
    publish: Literal["host", "mesh"] = Field(
        default="host",
        description=(
            "How ports are open: `host` on each node that runs the cache, for names with the "
            "addresses of them all; `mesh` on every node of the Swarm, which needs IPVS"
        ),
    )


Placement = Annotated[
    Annotated[EnginePlacement, Tag("engine")] | Annotated[SwarmPlacement, Tag("swarm")],
    by_kind("engine"),
]
