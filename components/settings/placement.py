"""The settings of the placement of caches."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from .model import Model, by_kind
from .values import LabelValue, Name


class EnginePlacement(Model):
    """Containers on one container engine."""

    kind: Literal["engine"] = Field(default="engine", description="One container engine")


class SwarmPlacement(Model):
    """Services of a Docker Swarm."""

    kind: Literal["swarm"] = Field(description="A Docker Swarm")
    node_labels: dict[Name, LabelValue] = Field(
        default={}, description="Labels of the nodes that run caches; the default is all nodes"
    )
    replicas: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = Field(
        default=None,
        description="Number of nodes that run each cache, without fronts; the default is all nodes",
    )
    publish: Literal["host", "mesh"] = Field(
        default="host",
        description=(
            "How ports are published: `host` on the nodes that run the cache, for a host name "
            "with the addresses of all of them; `mesh` on every node of the Swarm, which needs IPVS"
        ),
    )


Placement = Annotated[
    Annotated[EnginePlacement, Tag("engine")] | Annotated[SwarmPlacement, Tag("swarm")],
    by_kind("engine"),
]
