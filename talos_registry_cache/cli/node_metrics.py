"""Metrics of a Swarm service: one page from each of its nodes.

The metrics port is reachable in the stack's own network only, so a temporary container in that
network reads the pages.
"""

from collections.abc import Mapping
from typing import Any

from docker import DockerClient

from talos_registry_cache.cli.metrics import SIZE_LIMIT, Metrics, read_metrics
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.engine import services, temporary_container

PORT = 5001
# wget's own -T makes Debian's static busybox 1.35 crash.
GET = "busybox timeout 3 busybox wget -q -O -"


def of_service(client: DockerClient, cache: Cache) -> Metrics | None:
    """The metrics of all nodes of a service, added up; None if no node has any.

    Raises:
        docker.errors.DockerException: the engine cannot run the container.
    """
    networks = _networks_by_address(services.tasks(client, cache.process))
    if not networks:
        return None
    gets = [f"{GET} {_url(address)} | busybox head -c {SIZE_LIMIT}" for address in networks]
    container = temporary_container.create(
        client,
        cache.image,
        f"{cache.name} metrics",
        command=["; ".join(gets)],
        entrypoint=["busybox", "sh", "-c"],
        network=next(iter(networks.values())),
    )
    try:
        container.start()
        container.wait()
        # The log, not an attached stream: a busy engine may lose part of a stream.
        return read_metrics(container.logs(stdout=True, stderr=False).decode())
    finally:
        temporary_container.remove(container)


def _networks_by_address(tasks: list[Mapping[str, Any]]) -> Mapping[str, str]:
    """The name of the stack's own network, by the address that each task has in it."""
    return {
        attached["Addresses"][0].partition("/")[0]: attached["Network"]["Spec"]["Name"]
        for task in tasks
        for attached in task.get("NetworksAttachments", [])
        if not attached["Network"]["Spec"].get("Ingress")
    }


def _url(address: str) -> str:
    return f"http://{address}:{PORT}/metrics"
