"""What the nodes of a service count, each for itself: asked on the network of the stack's caches.

Metrics are open to that network only, so a container that is thrown away asks from there.
"""

from collections.abc import Mapping
from typing import Any

from docker import DockerClient

from talos_registry_cache.cli.metrics import SIZE_LIMIT, Metrics, read_metrics
from talos_registry_cache.cli.stack import Cache
from talos_registry_cache.engine import services, throwaway

PORT = 5001
# Not by wget's own -T, which ends Debian's static busybox 1.35 with a segmentation fault.
ASK = "busybox timeout 3 busybox wget -q -O -"


def of_service(client: DockerClient, cache: Cache) -> Metrics | None:
    """What all nodes of a service have done together since each was started; None if none counts.

    Raises:
        docker.errors.DockerException: the engine cannot ask.
    """
    found = _addresses(services.tasks(client, cache.name))
    if not found:
        return None
    # Its log, and not what it would print to us: an engine that is busy may lose some of that.
    container = throwaway.create(
        client,
        cache.image,
        f"{cache.name} metrics",
        command=["; ".join(f"{ASK} {_url(one)} | busybox head -c {SIZE_LIMIT}" for one in found)],
        entrypoint=["busybox", "sh", "-c"],
        network=next(iter(found.values())),
    )
    try:
        container.start()
        container.wait()
        return read_metrics(container.logs(stdout=True, stderr=False).decode())
    finally:
        throwaway.remove(container)


def _addresses(tasks: list[Mapping[str, Any]]) -> Mapping[str, str]:
    """The address of each task in the stack's own network, and the name of that."""
    return {
        attached["Addresses"][0].partition("/")[0]: attached["Network"]["Spec"]["Name"]
        for task in tasks
        for attached in task.get("NetworksAttachments", [])
        if not attached["Network"]["Spec"].get("Ingress")
    }


def _url(address: str) -> str:
    return f"http://{address}:{PORT}/metrics"
