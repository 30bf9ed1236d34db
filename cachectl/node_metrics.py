"""What the nodes of a service count, each for itself: asked on the network of the stack's caches.

Metrics are open to that network only, so a container that is thrown away asks from there.
"""

from collections.abc import Mapping
from typing import Any

from docker import DockerClient

from cachectl import services
from cachectl.metrics import Metrics, read_metrics, together
from cachectl.stack import Cache
from registry import throwaway

PORT = 5001
# One is removed when it has asked; this is for one whose maker was killed.
LIVES_S = 120
ASKED_FOR_S = 3


def of_service(client: DockerClient, cache: Cache) -> Metrics | None:
    """What all nodes of a service have done together since each was started; None if none counts.

    Raises:
        docker.errors.DockerException: the engine cannot ask.
    """
    found = _addresses(services.tasks(client, cache.name))
    if not found:
        return None
    label = f"{cache.name} metrics"
    throwaway.remove_leftovers(client, label)
    container = client.containers.run(
        cache.image,
        [str(LIVES_S)],
        entrypoint=["busybox", "sleep"],
        detach=True,
        labels={throwaway.LABEL: label},
        network=next(iter(found.values())),
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )
    try:
        asked = [
            container.exec_run(
                ["busybox", "wget", "-q", "-T", str(ASKED_FOR_S), "-O", "-", _url(address)],
                stderr=False,
            )
            for address in found
        ]
    finally:
        throwaway.remove(container)
    texts = [raw.decode() for _, raw in asked if isinstance(raw, bytes)]
    return together(one for text in texts if (one := read_metrics(text)))


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
