"""Docker nodes that end, cannot pull images or refuse pods while their cluster is created.

A node that runs never ends by itself during a boot. talosctl does not look at the containers: it
waits for the node's API until its time limit, or fails with a panic.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from docker import DockerClient
from docker.models.containers import Container

from talos_registry_cache.talos import docker_nodes, failed_pulls, node_pressure, node_runtime
from talos_registry_cache.talos.errors import TalosError
from talos_registry_cache.talos.nodes import role

LOOK_EVERY_S = 1.0
READ_LOGS_EVERY_S = 5.0
ENDED = frozenset({"exited", "dead", "restarting"})
LOGGED_LINES = 200
SHOWN_LINES = 5
LONGEST_SHOWN = 200

MIB = 2**20
# From Talos's requirements.
NEEDED = {"controlplane": 2048 * MIB, "worker": 1024 * MIB}
RAISE_MEMORY = "a control plane node needs 2 GiB, and a worker 1 GiB. Raise `memory` of the cluster"

MOST_RESTARTS = 3
MISSED_CREDENTIALS = (
    "whose container runtime was started by Talos before it had the credentials of the mirrors"
)

OTHER_ARCHITECTURE = "exec format error"
# By a text in the log of a node. The first that is found counts.
CAUSES = {
    OTHER_ARCHITECTURE: "its image is for another architecture",
    "failed to create cgroup": (
        "control groups are not delegated to the engine's containers; nodes need a writable "
        "/sys/fs/cgroup. Run the engine on the machine itself, not in a container"
    ),
    "operation not permitted": (
        "privileged containers lack a capability, such as CAP_SYS_ADMIN; nodes need all of them. "
        "Run the engine as root on the machine itself, without user namespaces"
    ),
}


class NodeEndedError(TalosError):
    """A node ended while its cluster was created; the message says why."""


@dataclass(slots=True)
class Watch:
    """Looks for ended nodes from time to time, and shows what keeps others from becoming healthy.

    That is an image that a node cannot pull, or a resource that it is short of.

    A node whose container runtime has missed its credentials is restarted, a few times at most.

    Attributes:
        engine: the engine of the nodes.
        cluster: the name of the cluster.
        show: called with a line for the user.
        has_credentials: whether the nodes are given credentials for their mirrors.
    """

    engine: DockerClient
    cluster: str
    show: Callable[[str], None]
    has_credentials: bool = False
    _looked: float = field(default_factory=time.monotonic, init=False)
    _read_logs: float = field(default_factory=time.monotonic, init=False)
    _shown: set[tuple[str, str]] = field(default_factory=set, init=False)
    _restarts: Counter[str] = field(default_factory=Counter, init=False)

    def __call__(self) -> None:
        """Look, unless that was just done.

        Raises:
            NodeEndedError: a node has ended.
            TalosError: the engine does not answer.
        """
        if time.monotonic() - self._looked < LOOK_EVERY_S:
            return
        nodes = docker_nodes.containers_of(self.engine, self.cluster)
        for container in nodes:
            if container.status in ENDED:
                raise NodeEndedError(f"the node {container.name} has ended")
        if time.monotonic() - self._read_logs >= READ_LOGS_EVERY_S:
            self._look_at_logs(nodes)
            self._read_logs = time.monotonic()
        self._looked = time.monotonic()

    def _look_at_logs(self, nodes: list[Container]) -> None:
        for container in nodes:
            errors = _runtime_errors(container)
            failed = _failed_pulls(_log(container), errors)
            if failed and node_runtime.lacks_credentials(errors):
                self._restart_if_possible(container)
            name = str(container.name)
            for image, reason in failed.items():
                self._show_once(name, image, failed_pulls.describe(name, image, reason))
            for shortage in _shortages(container):
                self._show_once(name, shortage, shortage)

    def _show_once(self, node: str, what: str, line: str) -> None:
        if (node, what) not in self._shown:
            self._shown.add((node, what))
            self.show(line)

    def _restart_if_possible(self, container: Container) -> None:
        """Restart a node that was given credentials, unless that was tried often enough."""
        name = str(container.name)
        if not self.has_credentials or self._restarts[name] == MOST_RESTARTS:
            return
        self._restarts[name] += 1
        self.show(f"restarting {name}, {MISSED_CREDENTIALS}")
        with docker_nodes.answering():
            # At once: a node that boots has nothing to lose, and would take half a minute.
            container.restart(timeout=0)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a creation has failed, as far as the nodes show it.

    Attributes:
        ended: a paragraph for each node that has ended; empty if all run.
        hints: why running nodes may not become healthy, a line each.
    """

    ended: str
    hints: tuple[str, ...]


def diagnose(engine: DockerClient, cluster: str, log: Path) -> Diagnosis:
    """Add what the nodes have logged to the cluster's log, and look for the cause of a failure.

    Args:
        engine: the engine of the nodes.
        cluster: the name of the cluster.
        log: the cluster's log.

    Raises:
        TalosError: the engine does not answer.
    """
    ended: list[str] = []
    pulls: list[str] = []
    shortages: list[str] = []
    for container in docker_nodes.containers_of(engine, cluster):
        console = _log(container)
        lines = console.splitlines()
        with log.open("a") as file:
            file.write("\n".join((f"$ docker logs {container.name}", *lines, "")))
        if container.status in ENDED:
            with docker_nodes.answering():
                ended.append("\n".join(_explained(engine, container, lines)))
        pulls += [
            failed_pulls.describe(str(container.name), image, reason)
            for image, reason in _failed_pulls(console, _runtime_errors(container)).items()
        ]
        shortages += [*_shortages(container), *_too_small(container)]
    return Diagnosis("\n".join(ended), (*pulls, *shortages))


def _too_small(container: Container) -> Iterator[str]:
    """Whether a node has less memory than Talos needs, since its checks may never pass."""
    limit = container.attrs["HostConfig"].get("Memory")
    needed = NEEDED[role(container.labels.get(docker_nodes.TYPE, ""))]
    if limit and limit < needed:
        found = f"the memory of {container.name} is limited to {limit / MIB:.0f} MiB"
        yield f"{found}; {RAISE_MEMORY}"


def _failed_pulls(console: str, errors: Iterable[str]) -> dict[str, str]:
    return {**failed_pulls.find(console), **failed_pulls.find("\n".join(errors))}


def _shortages(container: Container) -> list[str]:
    """The resources that a node is short of, a line each."""
    with docker_nodes.answering():
        found = sorted(node_pressure.resources(container))
    return [node_pressure.describe(str(container.name), resource) for resource in found]


def _runtime_errors(container: Container) -> list[str]:
    with docker_nodes.answering():
        return node_runtime.errors(container)


def _log(container: Container) -> str:
    with docker_nodes.answering():
        return container.logs(tail=LOGGED_LINES).decode(errors="replace")


def _explained(engine: DockerClient, container: Container, lines: list[str]) -> Iterator[str]:
    state = container.attrs["State"]
    yield f"the node {container.name} ended with exit code {state.get('ExitCode')}"
    shown = lines[-SHOWN_LINES:]
    found = [(text, line) for text in CAUSES for line in lines if text in line]
    if state.get("OOMKilled"):
        yield f"  likely cause: {_out_of_memory(container)}"
    elif found:
        (text, line), *_ = found
        shown = [line]
        cause = CAUSES[text]
        if text == OTHER_ARCHITECTURE:
            cause += _architectures(engine, container)
        yield f"  likely cause: {cause}"
    yield from (f"  {line[:LONGEST_SHOWN]}" for line in shown)


def _out_of_memory(container: Container) -> str:
    limit = container.attrs["HostConfig"].get("Memory")
    left = f"of its {limit / MIB:.0f} MiB" if limit else "on the machine of the engine"
    return f"no memory was left {left}; {RAISE_MEMORY}"


def _architectures(engine: DockerClient, container: Container) -> str:
    image = engine.images.get(container.attrs["Image"]).attrs["Architecture"]
    return f" ({image}) than the engine ({engine.version()['Arch']})"
