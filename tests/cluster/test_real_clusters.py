"""Clusters of real Talos nodes that `pulumi up` creates and that boot from the caches.

The tests follow one cluster: created, looked at, given a local registry, disturbed, destroyed, and
created again offline.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pulumi.automation import CommandError

from talos_registry_cache.registry import pull_log
from talos_registry_cache.registry.pull_log import Kind, Pull
from tests.integration.support import belongings, docker_cli, host, kubernetes, nodes, processes
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.kubernetes import Site
from tests.integration.support.polling import eventually
from tests.integration.support.stack import CacheStack
from tests.integration.support.talos_node import TALOSCTL
from toolchain import kubernetes_images, talos_node

GITHUB, KUBERNETES = "ghcr.io", "registry.k8s.io"
PASSWORD = "Let-me-in 4711"  # noqa: S105 - protects caches of these tests
API_SERVER = next(one.name for one in kubernetes_images.images() if "kube-apiserver" in one.name)
NAME, NODES = "real", 2
ANSWERS_WITHIN_S = 60
READY_WITHIN_S = 300
RUNS_WITHIN_S = 60
# Beside the images, the upstream answers look-ups of tags.
ONE_COPY = 1.01
ALL_HEALTHY = "waiting for coredns to report ready: OK"

pytestmark = pytest.mark.timeout(3 * kubernetes.UP_WITHIN_S)

CLUSTER = {**kubernetes.CLUSTER, "workers": NODES - 1}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, its stack, and the engine that runs both."""

    site: Site
    caches: CacheStack

    def talosctl(self, *arguments: str) -> str:
        """Run talosctl on the control plane node with the talosconfig of the stack.

        It prints some results to standard error, so this returns both.
        """
        config = ("--talosconfig", self.file("talosconfig"), "--nodes", self.addresses[0])
        done = processes.finish(
            [*self.site.engine.enter, TALOSCTL, *config, *arguments],
            within_s=ANSWERS_WITHIN_S,
        )
        printed = done.stdout + done.stderr
        assert done.returncode == 0, printed
        return printed

    def health(self) -> str:
        """The output of `talosctl health`."""
        # Nodes do not find each other without Talos's discovery service.
        control_plane, *workers = self.addresses
        return self.talosctl(
            "health", "--control-plane-nodes", control_plane, "--worker-nodes", ",".join(workers)
        )

    def kubectl(self, *arguments: str) -> Any:
        """Run kubectl with the kubeconfig of the stack, and return its JSON."""
        options = (self.file("kubeconfig"), "--output", "json")
        return json.loads(kubernetes.kubectl(self.site, *options, *arguments))

    def file(self, kind: str) -> str:
        """The path of a client configuration in the outputs of the stack."""
        return str(self.caches.outputs()["clusters"][NAME][kind])

    def cachectl(self, *arguments: str) -> str:
        """Run cachectl for the stack, and return its output."""
        cachectl = Cachectl(self.caches.name, self.caches.folder, self.site.engine.enter)
        cachectl.env["DOCKER_HOST"] = self.site.engine.host
        ended = cachectl(*arguments)
        assert ended.code == 0, ended.err
        return ended.out

    def ready(self) -> set[str]:
        """The names of the Kubernetes nodes that are ready."""
        return {
            node["metadata"]["name"]
            for node in self.kubectl("get", "nodes")["items"]
            for condition in node["status"]["conditions"]
            if (condition["type"], condition["status"]) == ("Ready", "True")
        }

    def wait_until_ready(self) -> None:
        """Wait until all nodes are ready."""
        eventually(self._is_ready, within_s=READY_WITHIN_S, what="the nodes are ready", every_s=1)

    def cache_ids(self) -> dict[str, str]:
        """The container ID of the cache of each registry."""
        found = belongings.caches(self.site.client, self.caches.name)
        return {registry: str(cache.id) for registry, cache in found.items()}

    def log(self, registry: str) -> list[str]:
        """The lines of the log of a cache."""
        cache = belongings.caches(self.site.client, self.caches.name)[registry]
        return cache.logs().decode().splitlines()

    def start(self, pod: str, image: str, *arguments: str) -> None:
        """Start a pod whose image is pulled even if the node has one of this name."""
        options = (f"--image={image}", "--image-pull-policy=Always", "--restart=Never")
        self.kubectl("run", pod, *options, *(("--", *arguments) if arguments else ()))

    def wait_for(self, pod: str, phase: str) -> dict[str, Any]:
        """Wait until a pod is in a phase, and return the status of its container."""

        def status() -> Any:
            found = self.kubectl("get", "pod", pod)["status"]
            return found["containerStatuses"][0] if found["phase"] == phase else None

        found: dict[str, Any] = eventually(
            status, within_s=RUNS_WITHIN_S, what=f"the pod {pod} is {phase}", every_s=1
        )
        return found

    @property
    def addresses(self) -> list[str]:
        """The addresses of the nodes, that of the control plane first."""
        told = self.caches.outputs()["clusters"][NAME]["nodes"]
        return [node["address"] for node in sorted(told, key=lambda node: str(node["role"]))]

    def _is_ready(self) -> bool:
        try:
            return len(self.ready()) == NODES
        except processes.CommandFailedError:
            return False


@dataclass(frozen=True, slots=True)
class LocalRegistry:
    """A local registry that the stack of the running cluster got.

    Attributes:
        host: the registry host in the names of its images.
        replaced: the names of the resources that `up` replaced when it was added.
        others_kept: whether `up` left the other caches as they were.
    """

    host: str
    replaced: list[str]
    others_kept: bool
    _cluster: Cluster

    @property
    def image(self) -> str:
        """The name of its image."""
        return f"{self.host}/app:dev"

    @property
    def mirror(self) -> str:
        """Address and port at which nodes reach it."""
        return str(self._cluster.caches.outputs()["mirrors"][self.host]).removeprefix("http://")

    def push(self, folder: Path) -> str:
        """Build an image and push it as a user does; returns its digest.

        Args:
            folder: a folder for the files of the image.
        """
        engine = self._cluster.site.engine.host
        return docker_cli.push_busybox(self.image, folder, engine_host=engine)

    def pulls(self) -> list[Pull]:
        """What nodes pulled, in the log of its front: they tell the registry host."""
        pulls = pull_log.parse_all(self._cluster.log(self.host))
        return [pull for pull in pulls if pull.namespace == self.host]


@pytest.fixture(scope="module")
def cluster(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with kubernetes.stack(site, tmp_path_factory.mktemp("stack")) as made:
        made.configure({NAME: CLUSTER}, "clusters")
        made.configure({"references": list(kubernetes_images.names())}, "images")
        made.up()
        yield Cluster(site, made)


@pytest.fixture(scope="module")
def local(cluster: Cluster) -> LocalRegistry:
    port, before = host.free_port(), cluster.cache_ids()
    cluster.caches.configure({**cluster.caches.settings(), "local": {"port": port}})
    steps = cluster.caches.plan()
    replaced = {step["urn"].rpartition("::")[2] for step in steps if "replace" in step["op"]}
    cluster.caches.up()
    others_kept = before.items() <= cluster.cache_ids().items()
    return LocalRegistry(f"localhost:{port}", sorted(replaced), others_kept, cluster)


def test_a_declared_cluster_becomes_healthy(cluster: Cluster) -> None:
    told = cluster.caches.outputs()["clusters"][NAME]["nodes"]

    assert cluster.ready() == {node["name"] for node in told}
    assert ALL_HEALTHY in cluster.health()


def test_nodes_and_kubelets_ask_the_cache_of_the_registry_for_each_image(
    cluster: Cluster,
) -> None:
    for image in kubernetes_images.images():
        registry, _, rest = image.name.partition("/")
        asked = f"/v2/{rest.replace(':', '/manifests/')}?ns={registry}"
        assert any(asked in line for line in cluster.log(registry)), asked
    lines = [line for registry in (GITHUB, KUBERNETES) for line in cluster.log(registry)]
    agents = {found for line in lines for found in re.findall(r"containerd/v?2\.2", line)}
    assert agents == {"containerd/2.2", "containerd/v2.2"}, "the clients of Talos and of the CRI"


def test_the_upstream_sends_one_copy_of_each_image_to_two_nodes(cluster: Cluster) -> None:
    assert cluster.site.sent() / sum(map(kubernetes.size, kubernetes_images.names())) <= ONE_COPY


def test_cachectl_nodes_shows_that_all_images_came_from_the_caches(cluster: Cluster) -> None:
    folder = str(cluster.caches.clusters_folder)
    images = (name.rpartition("/")[2].partition(":") for name in kubernetes_images.names())
    versions = {image: tag for image, _, tag in images}

    (shown,) = json.loads(cluster.cachectl("nodes", "--json", "--folder", folder)).values()

    assert [node["address"] for node in shown.values()] == cluster.addresses
    for node in shown.values():
        assert (node["talos"], node["kubernetes"]) == (versions["talos"], versions["kubelet"])
        assert node["ready"]
        assert node["fromCaches"]
        assert all(node["fromCaches"].values()), node
    assert "not in the logs" not in cluster.cachectl("nodes", NAME, "--verbose", "--folder", folder)


def test_up_again_changes_nothing(cluster: Cluster) -> None:
    assert set(cluster.caches.up()) == {"same"}


def test_a_local_registry_that_is_added_replaces_the_cluster_and_keeps_the_caches(
    cluster: Cluster, local: LocalRegistry
) -> None:
    assert local.replaced == [NAME]
    assert local.others_kept
    assert ALL_HEALTHY in cluster.health()
    assert set(cluster.caches.up()) == {"same"}


def test_tools_find_the_local_registry_in_the_api_server(
    cluster: Cluster, local: LocalRegistry
) -> None:
    assert kubernetes.announced(cluster.site, cluster.file("kubeconfig")) == {
        "host": local.host,
        "hostFromContainerRuntime": local.host,
        "hostFromClusterNetwork": local.mirror,
    }


def test_a_pod_runs_the_image_that_was_pushed_last_and_reads_the_local_registry(
    cluster: Cluster, local: LocalRegistry, tmp_path: Path
) -> None:
    first = local.push(tmp_path)
    cluster.start("first", local.image)
    assert cluster.wait_for("first", "Running")["imageID"] == f"{local.host}/app@{first}"
    second = local.push(tmp_path)
    assert second != first

    tags = f"http://{local.mirror}/v2/app/tags/list"
    cluster.start("second", local.image, "wget", "-q", "-O", "-", tags)

    assert cluster.wait_for("second", "Succeeded")["imageID"] == f"{local.host}/app@{second}"
    pulls = local.pulls()
    assert {pull.repository for pull in pulls} == {"app"}
    assert {"dev"} <= {pull.reference for pull in pulls if pull.kind is Kind.MANIFEST}
    assert any(pull.kind is Kind.BLOB for pull in pulls)
    assert all(pull.agent.startswith("containerd/") for pull in pulls)
    folder = str(cluster.caches.clusters_folder)
    (shown,) = json.loads(cluster.cachectl("nodes", "--json", "--folder", folder)).values()
    assert [one["fromCaches"].get(local.image) for one in shown.values()] == [None, True]


def test_a_running_node_accepts_the_patch_of_cachectl_mirrors(
    cluster: Cluster, tmp_path: Path
) -> None:
    patch = tmp_path / "mirrors.yaml"
    patch.write_text(cluster.cachectl("mirrors", "--talos-version", "1.13"))

    said = cluster.talosctl("patch", "machineconfig", "--patch", f"@{patch}")

    assert "without a reboot" in said
    mirror = cluster.caches.outputs()["mirrors"][KUBERNETES]
    assert mirror in cluster.talosctl("get", "machineconfig", "--output", "yaml")


def test_a_second_cluster_pulls_from_caches_with_tls_and_a_password_and_leaves_the_first_alone(
    cluster: Cluster, site: Site, tmp_path: Path
) -> None:
    before = nodes.kept(site.client, NAME)
    with kubernetes.stack(site, tmp_path, tls={"kind": "own"}) as closed:
        closed.set_secret("readers.nodes", PASSWORD)
        settings = {**CLUSTER, "cidr": "10.6.0.0/24", "workers": 0}
        closed.configure({"closed": settings}, "clusters")

        closed.up()

        (node,) = closed.outputs()["clusters"]["closed"]["nodes"]
        assert node["status"] == "running"
        log = belongings.caches(site.client, closed.name)[KUBERNETES].logs().decode()
        assert "/v2/kube-apiserver/manifests/" in log
    assert nodes.left_of(site.client, "closed") == []
    assert nodes.kept(site.client, NAME) == before
    cluster.wait_until_ready()


def test_up_starts_a_killed_node_again(cluster: Cluster, site: Site) -> None:
    before = nodes.kept(site.client, NAME)
    nodes.of_cluster(site.client, NAME)[f"{NAME}-worker-1"].kill()

    cluster.caches.up()

    cluster.wait_until_ready()
    assert ALL_HEALTHY in cluster.health()
    assert nodes.kept(site.client, NAME) == before


def test_the_same_nodes_and_etcd_come_back_after_a_restart_of_the_engine(
    cluster: Cluster, site: Site
) -> None:
    created = cluster.kubectl("create", "namespace", "kept")["metadata"]["uid"]
    before = nodes.kept(site.client, NAME)
    site.engine.stop()
    site.engine.start()
    site.start_upstream()

    cluster.caches.up()

    cluster.wait_until_ready()
    assert ALL_HEALTHY in cluster.health()
    assert nodes.kept(site.client, NAME) == before
    assert cluster.kubectl("get", "namespace", "kept")["metadata"]["uid"] == created


def test_another_version_of_kubernetes_replaces_the_cluster_and_keeps_the_caches(
    cluster: Cluster, site: Site
) -> None:
    images = kubernetes.of_next_version()
    site.push_as(images)
    caches, sent = cluster.cache_ids(), site.sent()
    settings = {**CLUSTER, "kubernetesVersion": kubernetes.NEXT_VERSION}
    cluster.caches.configure({NAME: settings}, "clusters")
    cluster.caches.configure({"references": images}, "images")
    replaced = {step["urn"] for step in cluster.caches.plan() if "replace" in step["op"]}

    cluster.caches.up()

    assert [urn.rpartition("::")[2] for urn in replaced] == [NAME]
    assert ALL_HEALTHY in cluster.health()
    pods = json.dumps(cluster.kubectl("get", "pods", "--all-namespaces")["items"])
    assert f"registry.k8s.io/kube-apiserver:v{kubernetes.NEXT_VERSION}" in pods
    assert cluster.cache_ids() == caches
    assert site.sent() - sent < kubernetes.size(API_SERVER), "these images share their layers"


def test_a_new_and_larger_cluster_becomes_healthy_without_the_upstream(
    cluster: Cluster, site: Site
) -> None:
    cluster.caches.configure({}, "clusters")
    cluster.caches.configure({"references": list(kubernetes_images.names())}, "images")
    cluster.caches.up()
    assert nodes.left_of(site.client, NAME) == []
    site.stop_upstream()
    for found in (belongings.registries, belongings.caches):
        for container in found(site.client, cluster.caches.name).values():
            container.restart()
    cluster.caches.configure({NAME: {**CLUSTER, "workers": 3}}, "clusters")

    printed = cluster.caches.pulumi("up", "--yes", "--skip-preview")

    for phase in ("network", "nodes", "etcd", "kubelet", "Kubernetes", "ready after"):
        assert re.search(rf"{NAME}: {phase}:? \d+\.\d s", printed), printed
    assert ALL_HEALTHY in cluster.health()
    assert len(cluster.ready()) == 4


def test_a_cluster_that_cannot_pull_is_removed_and_the_failed_check_is_named(
    site: Site, tmp_path: Path
) -> None:
    site.start_upstream()
    with kubernetes.stack(site, tmp_path) as empty:
        empty.configure({"references": [talos_node.image()]}, "images")
        empty.up()
        site.stop_upstream()
        settings = {**CLUSTER, "cidr": "10.7.0.0/24", "timeout": "60s"}
        empty.configure({"empty": settings}, "clusters")

        with pytest.raises(CommandError) as failure:
            empty.up()

        assert "waiting for etcd to be healthy" in str(failure.value)
        assert str(empty.clusters_folder / "empty.log") in str(failure.value)
        assert nodes.left_of(site.client, "empty") == []


@pytest.mark.parametrize("workers", [0, 3])
def test_the_upstream_sends_one_copy_of_each_image_to_one_node_and_to_four(
    site: Site, tmp_path: Path, workers: int
) -> None:
    site.start_upstream()
    with kubernetes.stack(site, tmp_path) as cold:
        cold.configure({"references": list(kubernetes_images.names())}, "images")
        settings = {**CLUSTER, "cidr": "10.8.0.0/24", "workers": workers}
        cold.configure({"cold": settings}, "clusters")
        before = site.sent()

        cold.up()

        assert len(nodes.of_cluster(site.client, "cold")) == 1 + workers
    copies = (site.sent() - before) / sum(map(kubernetes.size, kubernetes_images.names()))
    assert 1 <= copies <= ONE_COPY


def test_new_nodes_share_the_fetches_of_images_that_the_stack_does_not_declare(
    site: Site, tmp_path: Path
) -> None:
    site.start_upstream()
    with kubernetes.stack(site, tmp_path) as undeclared:
        settings = {**CLUSTER, "cidr": "10.8.0.0/24", "workers": 2}
        undeclared.configure({"shared": settings}, "clusters")
        before = site.sent()

        undeclared.up()

        assert len(nodes.of_cluster(site.client, "shared")) == 3
    copies = (site.sent() - before) / sum(map(kubernetes.size, kubernetes_images.names()))
    assert copies <= ONE_COPY
