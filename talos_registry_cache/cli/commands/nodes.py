"""cachectl nodes: the nodes of a stack's clusters, and where their images came from."""

import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from docker import DockerClient
from docker.errors import NotFound

from talos_registry_cache.cli import console, options, stack
from talos_registry_cache.cli.commands import logs
from talos_registry_cache.cli.errors import ExitCode, UsageError
from talos_registry_cache.cli.node_requests import Request, is_from_caches, served
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.talos import docker_nodes, versions, virtual_machines
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.errors import TalosError
from talos_registry_cache.talos.node_state import NodeState, TalosApi
from talos_registry_cache.talos.nodes import Node

# Where `pulumi up` in a checkout keeps the files of a stack's clusters.
CLUSTERS = Path(".state", "clusters")
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Shown:
    """A node with everything that is shown of it.

    Attributes:
        node: the node.
        state: its state; None if it does not run or answer.
        images: for each image that it has pulled, whether a cache has served it.
        trouble: why the node is not as it should be; empty if it is.
    """

    node: Node
    state: NodeState | None
    images: Mapping[str, bool]
    trouble: str


def nodes(
    cluster: Annotated[
        str | None,
        typer.Argument(metavar="CLUSTER", help="Only this cluster.", show_default=False),
    ] = None,
    *,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="FOLDER",
            help=f"The folder of the stack's clusters. Default: {CLUSTERS}/STACK.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List the images of each node too.")
    ] = False,
    stack_name: options.StackName = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the nodes of the stack's clusters, their versions, and where their images came from.

    An image is "from the caches" if the log of a cache has a successful request for it by the
    node. Container engines often hide the address of a node from the cache; then a request by any
    node counts, from the creation of this node on. Logs are limited in size, and start again with
    the cache, so an image may have come from a cache although its log does not show it.

    Needs the talosctl of the cluster, and the talosconfig that `pulumi up` has written. For
    clusters that use the caches of another stack (`mirrorsFrom`), name that stack with `--stack`,
    and the folder of the clusters with `--folder`.

    Exit codes: 0 every node is ready, 1 failure, 2 wrong usage, 3 a node does not run, does not
    answer or is not ready.
    """
    with stack.opened(stack_name) as found:
        base = (folder or CLUSTERS / found.name).absolute()
        clusters = _clusters(base, cluster)
        requests = _requests(found.engine, found.caches)
        shown = {files.name: _shown(found.engine, files, requests) for files in clusters}
    if as_json:
        console.as_json(
            {
                name: {one.node.name: _described(one) for one in those}
                for name, those in shown.items()
            }
        )
    else:
        _show([one for those in shown.values() for one in those], is_verbose=verbose)
    for name, those in shown.items():
        if not those:
            console.say(f"{name}: the engine has no nodes of it")
    if any(not those or any(one.trouble for one in those) for those in shown.values()):
        raise typer.Exit(ExitCode.NOT_ALL_THERE)


def _clusters(base: Path, only: str | None) -> list[ClusterFiles]:
    """The clusters in a folder, or one of them.

    Raises:
        UsageError: there are none, or not this one.
    """
    names = sorted(path.parent.name for path in base.glob("*/talosconfig"))
    if not names or (only is not None and only not in names):
        wanted = f"the cluster {only}" if only else "a cluster"
        there = ", ".join(names) or "none"
        raise UsageError(f"{base} has no files of {wanted}: set --folder; clusters there: {there}")
    return [ClusterFiles(base, name) for name in names if only in (None, name)]


def _requests(client: DockerClient, caches: Mapping[str, Cache]) -> list[Request]:
    return [request for cache in caches.values() for request in served(logs.lines(client, cache))]


def _created(client: DockerClient, node: Node) -> datetime:
    """When a node was created, in whole seconds as in the logs; a virtual machine, long ago."""
    try:
        container = client.containers.get(node.name)
    except NotFound:
        return datetime.min.replace(tzinfo=UTC)
    return datetime.fromisoformat(container.attrs["Created"]).replace(microsecond=0)


def _shown(client: DockerClient, files: ClusterFiles, requests: list[Request]) -> list[Shown]:
    found = docker_nodes.find(client, files.name) or virtual_machines.find(files)
    there = found.nodes if found else ()
    try:
        api = TalosApi(versions.find(_talosctl(files)).path, files.talosconfig)
    except TalosError as error:
        return [Shown(node, None, {}, str(error)) for node in there]

    def look(node: Node) -> Shown:
        if not node.runs:
            return Shown(node, None, {}, f"it is {node.status}")
        try:
            state = api.read(node.address)
        except TalosError as error:
            return Shown(node, None, {}, " ".join(str(error).split()))
        since = _created(client, node)
        asked = [request for request in requests if request.at >= since]
        others = {one.address for one in there} - {node.address}
        images = {
            image: is_from_caches(image, digest, asked, others)
            for image, digest in sorted(state.images.items())
        }
        return Shown(node, state, images, "" if state.is_ready else "it is not ready")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(look, there))


def _talosctl(files: ClusterFiles) -> str:
    """The talosctl that created a cluster, which may not be the one on PATH."""
    words = shlex.split(files.command.read_text()) if files.command.exists() else []
    return words[words.index("cluster") - 1] if "cluster" in words else "talosctl"


def _show(shown: list[Shown], *, is_verbose: bool) -> None:
    console.table(
        ("node", "role", "address", "status", "Talos", "Kubernetes", "ready", "from the caches"),
        (
            (
                one.node.name, one.node.role, one.node.address or "-", one.node.status,
                *_cells(one.state, one.images),
            )
            for one in shown
        ),
    )  # fmt: skip
    if is_verbose:
        console.table(
            ("node", "image", "from"),
            (
                (one.node.name, image, "cache" if is_cached else "not in the logs")
                for one in shown
                for image, is_cached in one.images.items()
            ),
        )
    for one in shown:
        if one.trouble:
            console.say(f"{one.node.name}: {one.trouble}")


def _cells(state: NodeState | None, images: Mapping[str, bool]) -> tuple[str, ...]:
    if state is None:
        return ("-",) * 4
    ready = "yes" if state.is_ready else "no"
    count = f"{sum(images.values())} of {len(images)} images"
    return state.talos, state.kubernetes or "-", ready, count


def _described(one: Shown) -> dict[str, object]:
    state = one.state
    return {
        "role": one.node.role,
        "address": one.node.address or None,
        "status": one.node.status,
        "talos": state and state.talos,
        "kubernetes": state and state.kubernetes,
        "ready": state.is_ready if state else None,
        "fromCaches": dict(one.images) if state else None,
        "trouble": one.trouble or None,
    }
