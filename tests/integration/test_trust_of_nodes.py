"""A running Talos 1.14 node learns the next CA of its caches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from docker import DockerClient

from tests.integration.support import host, nodes, private_engine, processes, talos_node
from tests.integration.support.ageing import age_authority, age_certificate
from tests.integration.support.polling import eventually
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed

HUB, GITHUB = "docker.io", "ghcr.io"
NAME = "trusting"
# Without Kubernetes, the node does not become healthy.
CLUSTER: dict[str, Any] = {
    "talosctl": talos_node.TALOSCTL,
    "image": talos_node.IMAGE,
    "workers": 0,
    "wait": "none",
    "cidr": "10.76.0.0/24",
}
UP_WITHIN_S = 300


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster of one node, and the caches of its stack.

    Attributes:
        engine: the engine that runs them.
        client: a client of it.
        caches: the stack.
        workload: an image on the upstream of all caches.
    """

    engine: PrivateEngine
    client: DockerClient
    caches: CacheStack
    workload: Pushed

    def pulls(self) -> bool:
        """Whether the node pulls the image."""
        try:
            self.pull()
        except CommandFailedError:
            return False
        return True

    def pull(self) -> None:
        """Let the node pull the image again."""
        image = f"{HUB}/{self.workload.repository}:{self.workload.tag}"
        self.talosctl("image", "pull", image)
        self.talosctl("image", "remove", image)

    def talosctl(self, *arguments: str) -> str:
        """Run talosctl against the node."""
        (node,) = self.caches.outputs()["clusters"][NAME]["nodes"]
        config = self.caches.clusters_folder / NAME / "talosconfig"
        return processes.run(
            *self.engine.enter, talos_node.TALOSCTL, "--talosconfig", str(config),
            "--nodes", node["address"], *arguments, within_s=talos_node.ANSWERS_WITHIN_S,
        )  # fmt: skip


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if reason := private_engine.why_impossible():
        pytest.skip(reason)
    with (
        talos_node.sysctls_kept(),
        private_engine.running(tmp_path_factory.mktemp("engine")) as engine,
        engine.client() as client,
        engine.upstream(port := host.free_port()) as workload,
    ):
        talos_node.push_image(engine, port)
        gateway = host.bridge_gateway(client)
        settings = {
            "mirrorHost": gateway,
            "storage": {"onDestroy": "delete"},
            "upstreams": upstreams(f"http://{gateway}:{port}", HUB, GITHUB),
            "tls": {"kind": "own"},
        }
        with stack(
            tmp_path_factory.mktemp("caches"),
            client,
            settings,
            engine_host=engine.host,
            enter=engine.enter,
            within_s=UP_WITHIN_S,
        ) as caches:
            caches.configure({NAME: CLUSTER}, "clusters")
            caches.up()
            yield Site(engine, client, caches, workload)
            caches.destroy()


def test_a_running_node_trusts_the_next_ca_before_it_signs(site: Site) -> None:
    before = nodes.kept(site.client, NAME)
    eventually(site.pulls, within_s=talos_node.BOOTS_WITHIN_S, what="the node pulls an image")

    age_authority(site.caches, days_left=700)
    site.caches.up()
    site.pull()
    age_authority(site.caches, days_left=29)
    age_certificate(site.caches, days_left=29)
    site.caches.up()

    site.pull()
    assert nodes.kept(site.client, NAME) == before
