"""A private engine, and an upstream with the images of a Talos cluster."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.models.containers import Container

from tests.integration.support import host, network, private_engine, processes, talos_node
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.stack import CacheStack, upstreams
from tests.integration.support.stack import stack as new_stack
from tests.integration.support.upstream import METRICS_PORT, sent_in
from toolchain import kubernetes_images

REGISTRIES = ("docker.io", "ghcr.io", "registry.k8s.io")
PUSHED_WITHIN_S = 120
UP_WITHIN_S = 10 * 60

# Settings of a cluster with these images.
CLUSTER: dict[str, Any] = {
    "talosctl": talos_node.TALOSCTL,
    "configPatches": [
        # The node image has a plugin for the network of pods.
        {"cluster": {"network": {"cni": {"name": "custom"}}}},
        # For machines with version 1 of control groups.
        {"machine": {"kubelet": {"extraConfig": {"failCgroupV1": False}}}},
    ],
}


@dataclass(frozen=True, slots=True)
class Site:
    """The engine and the upstream.

    Attributes:
        engine: the engine.
        client: a client of it.
        upstream: the container of the upstream.
        port: port of the upstream.
    """

    engine: PrivateEngine
    client: DockerClient
    upstream: Container
    port: int

    @property
    def gateway(self) -> str:
        """The address where containers reach what the engine publishes."""
        return host.bridge_gateway(self.client)

    @property
    def upstream_url(self) -> str:
        """The URL of the upstream for containers."""
        return f"http://{self.gateway}:{self.port}"

    def sent(self) -> int:
        """The bytes that the upstream has sent since its start, from its own metrics."""
        url = f"http://{host.LOOPBACK}:{METRICS_PORT}/metrics"
        code, printed = self.upstream.exec_run(["wget", "-q", "-O", "-", url])
        assert code == 0, printed
        assert isinstance(printed, bytes)
        return sent_in(printed.decode())

    @property
    def runs(self) -> bool:
        """Whether the upstream runs."""
        self.upstream.reload()
        return bool(self.upstream.status == "running")

    def stop_upstream(self) -> None:
        """Stop the upstream: connections are refused."""
        self.upstream.stop(timeout=1)

    def start_upstream(self) -> None:
        """Start the upstream again."""
        self.upstream.start()

    def limit(self, mbit: int) -> None:
        """Limit what the upstream sends, in megabits per second, until it is stopped."""
        self.upstream.reload()
        pid = self.upstream.attrs["State"]["Pid"]
        processes.run("nsenter", f"--net=/proc/{pid}/ns/net", *network.limit_command(mbit))


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Run the engine and the upstream, and remove them at the end.

    Args:
        folder: an empty folder for the engine's files.
    """
    port = host.free_port()
    with (
        talos_node.sysctls_kept(),
        private_engine.running(folder) as engine,
        engine.client() as client,
        engine.upstream(port),
    ):
        (upstream,) = client.containers.list()
        for name in kubernetes_images.names():
            repository = name.partition("/")[2]
            processes.run(
                *engine.enter, "skopeo", "copy", "--all", "--quiet", "--dest-tls-verify=false",
                f"oci:{kubernetes_images.LAYOUT}:{name}",
                f"docker://{host.LOOPBACK}:{port}/{repository}",
                within_s=PUSHED_WITHIN_S,
            )  # fmt: skip
        yield Site(engine, client, upstream, port)


@contextmanager
def stack(
    site: Site, folder: Path, enter: Sequence[str] = (), **caches: Any
) -> Iterator[CacheStack]:
    """A stack on the engine, which is destroyed at the end.

    Args:
        site: the engine.
        folder: parent of its directory.
        enter: command prefix for Pulumi, within the network namespace of the engine.
        caches: settings of its caches, beside the upstreams.
    """
    settings = {
        "mirrorHost": site.gateway,
        "upstreams": upstreams(site.upstream_url, *REGISTRIES),
        **caches,
    }
    with new_stack(
        folder,
        site.client,
        settings,
        engine_host=site.engine.host,
        enter=(*site.engine.enter, *enter),
        within_s=UP_WITHIN_S,
    ) as made:
        try:
            yield made
        finally:
            made.destroy()


def size(image: str) -> int:
    """The bytes of an image for this platform: its index, manifest, configuration and layers."""
    index = kubernetes_images.LAYOUT / "index.json"
    entries = json.loads(index.read_text())["manifests"]
    named = kubernetes_images.REF_NAME
    (entry,) = [one for one in entries if one["annotations"][named] == image]
    (manifest,) = [
        one
        for one in _content(entry)["manifests"]
        if one["platform"]["architecture"] == host.architecture()
    ]
    content = _content(manifest)
    parts = [entry, manifest, content["config"], *content["layers"]]
    return sum(int(part["size"]) for part in parts)


def _content(descriptor: dict[str, Any]) -> dict[str, Any]:
    path = kubernetes_images.LAYOUT / "blobs" / descriptor["digest"].replace(":", "/")
    content: dict[str, Any] = json.loads(path.read_text())
    return content
