"""The state of a running node, as talosctl reads it from the node's Talos API."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talos_registry_cache.talos import process
from talos_registry_cache.talos.errors import TalosError

ANSWERS_WITHIN_S = 20.0
# containerd's namespaces of the images that Talos pulls, and of those that the kubelet pulls.
NAMESPACES = ("system", "cri")


@dataclass(frozen=True, slots=True)
class NodeState:
    """The state of a node.

    Attributes:
        talos: its version of Talos, such as `v1.13.0`.
        kubernetes: the version of its kubelet; None before Talos has configured it.
        is_ready: whether Kubernetes finds the node ready; it is not before the kubelet runs.
        images: the digest of each image that it has pulled, by reference.
    """

    talos: str
    kubernetes: str | None
    is_ready: bool
    images: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TalosApi:
    """The Talos API of a cluster's nodes.

    Attributes:
        talosctl: path of talosctl.
        talosconfig: the client configuration of the cluster.
    """

    talosctl: str
    talosconfig: Path

    def read(self, address: str) -> NodeState:
        """Read the state of the node at an address.

        Raises:
            TalosError: talosctl or the node does not answer, or not as expected.
        """
        try:
            version = json.loads(self._run(address, "version", "--json"))
            kubelets = self._resources(address, "kubeletspec")
            statuses = self._resources(address, "nodestatus")
            images = [self._run(address, "image", "list", "--namespace", n) for n in NAMESPACES]
            return NodeState(
                talos=version["version"]["tag"],
                kubernetes=next((one["image"].rpartition(":")[2] for one in kubelets), None),
                is_ready=any(one["nodeReady"] for one in statuses),
                images={name: digest for printed in images for name, digest in _images(printed)},
            )
        except (ValueError, LookupError, TypeError) as error:
            raise TalosError(
                f"talosctl printed something unknown about {address}: {error!r}"
            ) from error

    def _resources(self, address: str, kind: str) -> list[Mapping[str, Any]]:
        """The specs of the resources of a kind; talosctl prints one JSON text after another."""
        rest = self._run(address, "get", kind, "--output", "json").lstrip()
        found = []
        while rest:
            resource, end = json.JSONDecoder().raw_decode(rest)
            found.append(resource["spec"])
            rest = rest[end:].lstrip()
        return found

    def _run(self, address: str, *arguments: str) -> str:
        config = ("--talosconfig", str(self.talosconfig), "--nodes", address)
        return process.capture([self.talosctl, *arguments, *config], within_s=ANSWERS_WITHIN_S)


def _images(printed: str) -> Iterator[tuple[str, str]]:
    """The images in the table of `talosctl image list`, each under one name.

    It has an image as NAME:TAG, as NAME@DIGEST and by its ID. An image that was pulled by digest
    has no row with a tag.
    """
    rows = [tuple(line.split()[1:3]) for line in printed.splitlines()[1:]]
    tagged = {(_repository(name), digest) for name, digest in rows if "@" not in name}
    for name, digest in rows:
        is_known = "@" in name and (name.partition("@")[0], digest) in tagged
        if not name.startswith("sha256:") and not is_known:
            yield name, digest


def _repository(name: str) -> str:
    return name.rpartition(":")[0]
