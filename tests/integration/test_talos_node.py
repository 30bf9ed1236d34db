"""A real Talos node pulls through the caches."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from docker import DockerClient

from tests.integration.support import belongings, host, private_engine, processes, talos_node
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.polling import eventually
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.talos_node import Node
from tests.integration.support.upstream import IMAGE, Pushed

HUB, GITHUB = "docker.io", "ghcr.io"
LOGGED_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Site:
    """A node, and the stack that it pulls through.

    Attributes:
        node: the node.
        caches: the stack.
        client: a client of their engine.
        workload: an image on the upstream of all caches.
    """

    node: Node
    caches: CacheStack
    client: DockerClient
    workload: Pushed

    @property
    def local(self) -> str:
        """The local registry, as in the names of its images."""
        return f"localhost:{self.caches.settings()['local']['port']}"

    def push(self, image: str) -> None:
        """Push an image of the engine under a name on the workstation."""
        for command in (("tag", IMAGE, image), ("push", image)):
            processes.run("docker", "--host", self.node.engine.host, *command)

    @property
    def image(self) -> str:
        """The image, by the name that a pod would have for it."""
        return f"{HUB}/{self.workload.repository}:{self.workload.tag}"

    def log(self, registry: str) -> str:
        """The log of a cache."""
        return belongings.caches(self.client, self.caches.name)[registry].logs().decode()

    def stop_upstream(self) -> None:
        """Stop the upstream of all caches."""
        for container in self.client.containers.list():
            if container.name not in self._own:
                container.stop(timeout=1)

    @property
    def _own(self) -> set[str]:
        caches = belongings.containers(self.client, self.caches.name)
        return {str(one.name) for one in caches} | {f"{talos_node.NAME}-controlplane-1"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if reason := private_engine.why_impossible():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("caches")
    with (
        private_engine.running(tmp_path_factory.mktemp("engine")) as engine,
        engine.client() as client,
        engine.upstream(port := host.free_port()) as workload,
    ):
        gateway = host.bridge_gateway(client)
        settings = {
            "mirrorHost": gateway,
            "storage": {"onDestroy": "delete"},
            "upstreams": upstreams(f"http://{gateway}:{port}", HUB, GITHUB),
            "wildcard": {"port": host.free_port()},
            "local": {"port": host.free_port()},
        }
        with stack(folder, client, settings, engine_host=engine.host) as caches:
            caches.up()
            patch = _mirrors(caches, folder, engine)
            with talos_node.booted(engine, tmp_path_factory.mktemp("node"), patch) as node:
                yield Site(node, caches, client, workload)


def _mirrors(caches: CacheStack, folder: Path, engine: private_engine.PrivateEngine) -> Path:
    """The patch that `cachectl mirrors` prints, without a mirror of its own for ghcr.io."""
    cachectl = Cachectl(caches.name, folder, engine.enter, engine_host=engine.host)
    patch = folder / "mirrors.yaml"
    documents = yaml.safe_load_all(cachectl("mirrors", "--talos-version", "1.14").out)
    patch.write_text(yaml.safe_dump_all(one for one in documents if one["name"] != GITHUB))
    return patch


def test_a_node_asks_the_wildcard_mirror_for_the_images_that_it_boots_with(site: Site) -> None:
    eventually(
        lambda: "/v2/siderolabs/kubelet/manifests/" in site.log(GITHUB),
        within_s=LOGGED_WITHIN_S,
        what="the node asks the cache for the kubelet",
    )
    asked = [line for line in site.log(GITHUB).splitlines() if "siderolabs/kubelet" in line]
    assert any(f"ns={GITHUB}" in line for line in asked), asked


def test_a_node_pulls_what_the_workstation_has_pushed_under_the_same_name(site: Site) -> None:
    image = f"{site.local}/team/mine:dev"

    site.push(image)

    pulled = site.node.talosctl("image", "pull", image)
    assert pulled.returncode == 0, pulled.stderr
    assert image in site.node.talosctl("image", "list").stdout


def test_a_node_pulls_an_image_again_once_the_upstream_is_gone(site: Site) -> None:
    first = site.node.talosctl("image", "pull", site.image)
    site.stop_upstream()
    removed = site.node.talosctl("image", "remove", site.image)
    again = site.node.talosctl("image", "pull", site.image)

    assert (first.returncode, removed.returncode) == (0, 0), first.stderr + removed.stderr
    assert again.returncode == 0, again.stderr
    listed = site.node.talosctl("image", "list")
    assert site.image in listed.stdout
    asked = [line for line in site.log(HUB).splitlines() if f"ns={HUB}" in line]
    assert any("containerd" in line and site.workload.repository in line for line in asked), asked
