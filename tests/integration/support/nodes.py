"""Stand-ins for Talos nodes, and the clusters on the engine."""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from docker import DockerClient
from docker.models.containers import Container

from tests.integration.support import host, processes
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.upstream import IMAGE, Pushed

CLUSTER_LABEL = "talos.cluster.name"
REPOSITORY = "siderolabs/talos"
PUSHED_WITHIN_S = 60

# The container does nothing until it is stopped.
ENTRYPOINT = 'ENTRYPOINT ["sh", "-c", "trap \\"exit 0\\" TERM INT; while :; do sleep 1; done"]'


@contextmanager
def upstream(engine: PrivateEngine, port: int, folder: Path, *tags: str) -> Iterator[Pushed]:
    """Run an upstream with a node image under these tags, and one image for nodes to pull.

    Args:
        engine: the engine that runs the upstream; only it can reach the upstream.
        port: port of the upstream.
        folder: directory for temporary files.
        tags: tags of the node image.
    """
    docker = ["docker", "--host", engine.host]
    with engine.upstream(port) as workload:
        archive = folder / "node.tar"
        made = processes.run(*docker, "create", IMAGE).strip()
        processes.run(*docker, "export", "--output", archive, made)
        processes.run(*docker, "rm", "--volumes", made)
        for tag in tags:
            image = f"{host.LOOPBACK}:{port}/{REPOSITORY}:{tag}"
            processes.run(*docker, "import", "--change", ENTRYPOINT, archive, image)
            processes.run(*docker, "push", image)
            processes.run(*docker, "image", "rm", image)
        archive.unlink()
        yield workload


def of_cluster(engine: DockerClient, cluster: str) -> dict[str, Container]:
    """The nodes of a cluster, by name."""
    found = engine.containers.list(
        all=True, filters={"label": f"{CLUSTER_LABEL}={cluster}"}, ignore_removed=True
    )
    return {str(node.name): node for node in found}


def kept(engine: DockerClient, cluster: str) -> dict[str, Any]:
    """Properties that nodes must keep: container ID, volumes, address and ports, by node name."""
    return {
        name: {
            "id": node.id,
            "volumes": sorted(
                mount["Name"] for mount in node.attrs["Mounts"] if mount["Type"] == "volume"
            ),
            "address": node.attrs["NetworkSettings"]["Networks"][cluster]["IPAddress"],
            "ports": node.attrs["NetworkSettings"]["Ports"],
        }
        for name, node in of_cluster(engine, cluster).items()
    }


def stop(engine: DockerClient, cluster: str, *names: str) -> None:
    """Stop nodes of a cluster."""
    found = of_cluster(engine, cluster)
    for name in names:
        found[name].stop(timeout=1)


def statuses(engine: DockerClient, cluster: str) -> set[str]:
    """The statuses of the nodes of a cluster, such as running."""
    return {node.status for node in of_cluster(engine, cluster).values()}


def left_of(engine: DockerClient, cluster: str) -> list[str]:
    """The containers and networks of a cluster on the engine."""
    networks = engine.networks.list(filters={"label": f"{CLUSTER_LABEL}={cluster}"})
    return [*of_cluster(engine, cluster), *(str(network.name) for network in networks)]


def mirrors(node: Container) -> Mapping[str, str]:
    """The URL of each mirror in the machine configuration of a node, by registry host."""
    (userdata,) = (
        variable.partition("=")[2]
        for variable in node.attrs["Config"]["Env"]
        if variable.startswith("USERDATA=")
    )
    configuration: dict[str, Any] = yaml.safe_load(base64.b64decode(userdata))
    found = configuration["machine"]["registries"]["mirrors"]
    return {registry: mirror["endpoints"][0] for registry, mirror in found.items()}
