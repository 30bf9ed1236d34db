"""Clusters of the docker provisioner: finding, starting and removing them by their labels.

The labels are the same in every version (pkg/provision/providers/docker, v0.4 to v1.14) and exist
from the start, whereas talosctl writes its own state file late or, up to 1.11, never. `talosctl
cluster destroy` does the same as `remove` (containers with their volumes, then the network), but
refuses after a failed creation.
"""

import io
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from docker import DockerClient
from docker.errors import DockerException, NotFound
from docker.models.containers import Container

from talos_registry_cache.talos.errors import TalosError
from talos_registry_cache.talos.nodes import KUBERNETES_PORT, Found, Node, role

CLUSTER = "talos.cluster.name"
TYPE = "talos.type"

# How long started nodes are watched: one that cannot run exits at once.
STAYS_UP_S = 3.0
POLL_S = 0.2
# Of a file that is read from a node, in bytes.
SIZE_LIMIT = 8 << 20

# In the words of Docker 20.10 to 29, if a container or another program has the port.
_TAKEN = re.compile(
    r":(\d+)(?:/tcp)?(?: failed)?: (?:bind: )?(?:port is already allocated|address already in use)"
)


def find(engine: DockerClient, cluster: str) -> Found | None:
    """Find a cluster's nodes; None if the engine has neither nodes nor a network of it.

    Raises:
        TalosError: the engine does not answer.
    """
    with answering():
        containers = containers_of(engine, cluster)
        networks = engine.networks.list(filters=_labelled(cluster))
    if not containers and not networks:
        return None
    nodes = sorted((_node(container, cluster) for container in containers), key=lambda n: n.name)
    return Found(nodes, _kubernetes_endpoint(nodes))


def start(engine: DockerClient, cluster: str, on_line: Callable[[str], None]) -> None:
    """Start the stopped nodes of a cluster, control planes first, and check that they stay up.

    They keep their volumes, addresses and ports. If one fails, the others are started anyway.

    Args:
        engine: the engine.
        cluster: the name of the cluster.
        on_line: called with a line for each node that is started.

    Raises:
        TalosError: a node does not start or stay up, or the engine does not answer.
    """
    with answering():
        stopped = [one for one in containers_of(engine, cluster) if not _node(one, cluster).runs]
    stopped.sort(key=lambda one: (_node(one, cluster).role != "controlplane", one.name))
    failures = []
    started = []
    for container in stopped:
        on_line(f"starting the stopped node {container.name}")
        try:
            container.unpause() if container.status == "paused" else container.start()
            started.append(container)
        except DockerException as error:
            failures.append(f"the node {container.name} cannot be started: {error}")
    with answering():
        failures += _ended(started)
    if failures:
        raise TalosError("; ".join(failures))


def remove(engine: DockerClient, cluster: str, *, settles_s: float = 0.0) -> None:
    """Remove a cluster from the engine: its containers with their volumes, and its network.

    Args:
        engine: the engine.
        cluster: the name of the cluster.
        settles_s: for how long nothing more must appear. The engine may take that long to complete
            the requests of a talosctl that was ended.

    Raises:
        TalosError: the engine does not answer, or refuses.
    """
    until = time.monotonic() + settles_s
    while (found := _remove_found(engine, cluster)) or time.monotonic() < until:
        if found:
            until = time.monotonic() + settles_s
        time.sleep(POLL_S)


def _remove_found(engine: DockerClient, cluster: str) -> bool:
    """Remove what there is of a cluster; returns whether there was anything."""
    containers = containers_of(engine, cluster)
    with answering():
        for container in containers:
            with suppress(NotFound):
                container.remove(force=True, v=True)
        networks = engine.networks.list(filters=_labelled(cluster))
        for network in networks:
            with suppress(NotFound):
                network.remove()
    return bool(containers or networks)


def containers_of(engine: DockerClient, cluster: str) -> list[Container]:
    """The containers of a cluster's nodes.

    Raises:
        TalosError: the engine does not answer.
    """
    with answering():
        return engine.containers.list(all=True, filters=_labelled(cluster), ignore_removed=True)


def read_text(container: Container, path: str) -> str:
    """The text of a log in a node; empty if there is none yet, or if it is too large.

    Raises:
        docker.errors.DockerException: the engine does not answer.
    """
    try:
        chunks, stat = container.get_archive(path)
    except NotFound:
        return ""
    if stat is None or stat["size"] > SIZE_LIMIT:
        return ""
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        file = tar.extractfile(tar.next() or "")
        return file.read().decode(errors="replace") if file else ""


def taken_port(error: str) -> str | None:
    """The port that the engine could not publish according to an error; None if it is another."""
    found = _TAKEN.search(error)
    return found and found[1]


def _ended(started: list[Container]) -> list[str]:
    """Watch nodes that were just started, and describe those that do not stay up."""
    until = time.monotonic() + STAYS_UP_S
    while started and time.monotonic() < until:
        for container in started:
            container.reload()
        if not all(container.status == "running" for container in started):
            break
        time.sleep(POLL_S)
    return [
        f"the node {container.name} was started but did not stay up ({container.status}); "
        f"see `docker logs {container.name}`"
        for container in started
        if container.status != "running"
    ]


def _labelled(cluster: str) -> dict[str, Any]:
    return {"label": ["talos.owned=true", f"{CLUSTER}={cluster}"]}


def _node(container: Container, cluster: str) -> Node:
    settings = container.attrs["NetworkSettings"]
    network = (settings.get("Networks") or {}).get(cluster) or {}
    published = {
        port: f"{bindings[0]['HostIp']}:{bindings[0]['HostPort']}"
        for port, bindings in (settings.get("Ports") or {}).items()
        if bindings
    }
    return Node(
        name=str(container.name),
        role=role(container.labels.get(TYPE, "")),
        address=network.get("IPAddress") or "",
        status=container.status,
        ports=published,
    )


def _kubernetes_endpoint(nodes: list[Node]) -> str | None:
    for node in nodes:
        address = node.ports.get(KUBERNETES_PORT)
        if address is not None:
            # talosctl publishes on all addresses, and connects to this one itself.
            return f"https://127.0.0.1:{address.rpartition(':')[2]}"
    return None


@contextmanager
def answering() -> Iterator[None]:
    """Turn errors of the engine into TalosError."""
    try:
        yield
    except (DockerException, OSError) as error:
        raise TalosError(f"the container engine: {error}") from error
