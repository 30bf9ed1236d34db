"""The nodes of a cluster, as they are found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

KUBERNETES_PORT = "6443/tcp"

# What talosctl has called the roles over the years (pkg/machinery/config/machine, v0.4 to v1.14).
_ROLES = {"init": "controlplane", "controlplane": "controlplane", "join": "worker"}


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    Attributes:
        name: its name, which is its container's as well.
        role: controlplane or worker.
        address: its IPv4 address on the cluster's network; empty for a container that has stopped.
        status: `running`, or what it is instead.
        ports: where its ports are published on this machine, such as 127.0.0.1:32771, by port.
    """

    name: str
    role: str
    address: str
    status: str
    ports: Mapping[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        """Whether it is up. One that is not still has its volumes, and etcd's data in them."""
        return self.status == "running"


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a cluster, whole or not.

    Attributes:
        nodes: its nodes, by name.
        kubernetes_endpoint: URL of Kubernetes' API on this machine; None where there is none.
    """

    nodes: Sequence[Node]
    kubernetes_endpoint: str | None = None


def role(found: str) -> str:
    """The role that one of talosctl's names for it means."""
    return _ROLES.get(found, "worker")


def problems(nodes: Sequence[Node], wanted: Mapping[str, int]) -> Iterator[str]:
    """What a cluster lacks of its nodes, in words. A node that has stopped is not missing.

    Args:
        nodes: those that there are.
        wanted: how many there should be, by role.
    """
    for wanted_role, count in wanted.items():
        there = [node.name for node in nodes if node.role == wanted_role]
        if len(there) != count:
            named = f": {', '.join(there)}" if there else ""
            yield f"{len(there)} of {count} {wanted_role} nodes are there{named}"


def not_running(nodes: Sequence[Node]) -> Iterator[str]:
    """Which nodes of a cluster have stopped, in words."""
    yield from (f"{node.name} is {node.status}, not running" for node in nodes if not node.runs)
