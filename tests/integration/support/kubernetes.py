"""A private engine, and an upstream with the images of a Talos cluster."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.models.containers import Container

from tests.integration.support import host, private_engine, processes, talos_node
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.upstream import METRICS_PORT, SENT, Pushed
from toolchain import kubernetes_images

PUSHED_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Site:
    """The engine and the upstream.

    Attributes:
        engine: the engine.
        client: a client of it.
        workload: an image in the upstream that no node needs.
        port: port of the upstream.
    """

    engine: PrivateEngine
    client: DockerClient
    workload: Pushed
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
        code, printed = self._upstream.exec_run(["wget", "-q", "-O", "-", url])
        assert code == 0, printed
        assert isinstance(printed, bytes)
        found = re.findall(rf"^{SENT}\S* (\S+)$", printed.decode(), re.MULTILINE)
        return sum(int(float(number)) for number in found)

    def stop_upstream(self) -> None:
        """Stop the upstream: connections are refused."""
        self._upstream.stop(timeout=1)

    def start_upstream(self) -> None:
        """Start the upstream again."""
        self._upstream.start()

    @property
    def _upstream(self) -> Container:
        filters: dict[str, str | list[str] | bool] = {"publish": str(self.port)}
        (upstream,) = self.client.containers.list(all=True, filters=filters)
        return upstream


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
        engine.upstream(port) as workload,
    ):
        for name in kubernetes_images.names():
            repository = name.partition("/")[2]
            processes.run(
                *engine.enter, "skopeo", "copy", "--all", "--quiet", "--dest-tls-verify=false",
                f"oci:{kubernetes_images.LAYOUT}:{name}",
                f"docker://{host.LOOPBACK}:{port}/{repository}",
                within_s=PUSHED_WITHIN_S,
            )  # fmt: skip
        yield Site(engine, client, workload, port)


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
