"""Resources that a docker node is short of, as its kubelet logs them.

The kubelet then refuses pods (kubernetes.io, Node-pressure Eviction), and the cluster may never
become healthy. talosctl does not say why.
"""

import re

from docker.models.containers import Container

from talos_registry_cache.talos import docker_nodes

LOG = "/var/log/kubelet.log"
# In JSON, or as older versions of Talos have it.
RECLAIMED = re.compile(r'attempting to reclaim".*?\bresourceName"?[:=]"(?P<resource>[^"]+)"')
# By the names of the kubelet.
RESOURCES = {
    "ephemeral-storage": "disk space. By default, 15% of the container engine's disk must be free",
    "inodes": "inodes on the container engine's disk",
    "memory": "memory",
    "pids": "process IDs",
}


def resources(container: Container) -> set[str]:
    """The resources that the kubelet of a node has tried to reclaim.

    Raises:
        docker.errors.DockerException: the engine does not answer.
    """
    log = docker_nodes.read_text(container, LOG)
    return {found["resource"] for found in RECLAIMED.finditer(log)}


def describe(node: str, resource: str) -> str:
    """Describe a shortage in one line."""
    return f"{node} refuses pods, because it is short of {RESOURCES.get(resource, resource)}"
