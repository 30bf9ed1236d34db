"""The nodes of a cluster."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

KUBERNETES_PORT = "6443/tcp"

# talosctl's names of the roles, old and new (pkg/machinery/config/machine, v0.4 to v1.14).
_ROLES = {"init": "controlplane", "controlplane": "controlplane", "join": "worker"}


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    Attributes:
        name: its name, also of its container.
        role: controlplane or worker.
        address: its IPv4 address on the cluster's network; empty for a stopped container.
        status: `running`, or the state of its container or virtual machine.
        ports: published addresses on this machine, such as 127.0.0.1:32771, by port.
    """

    name: str
    role: str
    address: str
    status: str
    ports: Mapping[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        """Whether it runs. A stopped node still has its volumes with etcd's data."""
        return self.status == "running"


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a cluster, complete or not.

    Attributes:
        nodes: its nodes, sorted by name.
        kubernetes_endpoint: URL of the Kubernetes API on this machine, or None.
    """

    nodes: Sequence[Node]
    kubernetes_endpoint: str | None = None


def role(found: str) -> str:
    """Translate one of talosctl's names of a role."""
    return _ROLES.get(found, "worker")


def problems(nodes: Sequence[Node], wanted: Mapping[str, int]) -> Iterator[str]:
    """Describe missing or surplus nodes, one sentence for each role. Stopped nodes count.

    Args:
        nodes: the existing nodes.
        wanted: the number of nodes that there should be, by role.
    """
    for wanted_role, count in wanted.items():
        there = [node.name for node in nodes if node.role == wanted_role]
        if len(there) != count:
            named = f": {', '.join(there)}" if there else ""
            yield f"{len(there)} of {count} {wanted_role} nodes exist{named}"


def not_running(nodes: Sequence[Node]) -> Iterator[str]:
    """Describe the nodes that do not run."""
    yield from (f"{node.name} is {node.status}, not running" for node in nodes if not node.runs)
