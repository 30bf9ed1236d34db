"""A private engine, and an upstream with the images of a Talos cluster."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from docker import DockerClient
from docker.models.containers import Container

from components import certificate_authority
from tests.integration.support import host, network, private_engine, processes, talos_node
from tests.integration.support.polling import eventually
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.stack import CacheStack, upstreams
from tests.integration.support.stack import stack as new_stack
from tests.integration.support.upstream import IMAGE, METRICS_PORT, sent_in
from toolchain import kubernetes_images
from toolchain import talos_node as node_image

REGISTRIES = ("docker.io", "ghcr.io", "registry.k8s.io")
PUSHED_WITHIN_S = 120
# A version that talosctl 1.11 creates clusters with.
OLDER_NODE = node_image.image(node_image.MACHINED_1_11)
NEXT_VERSION = "1.36.1"
ANSWERS_WITHIN_S = 30
KUBECTL_WITHIN_S = 60
UP_WITHIN_S = 10 * 60

KUBELET: dict[str, Any] = {
    # For machines with version 1 of control groups.
    "failCgroupV1": False,
    # For machines whose disk is almost full.
    "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
    "imageGCHighThresholdPercent": 100,
}
# Settings of a cluster with these images.
CLUSTER: dict[str, Any] = {
    "talosctl": talos_node.TALOSCTL,
    "configPatches": [
        # The node image has a plugin for the network of pods.
        {"cluster": {"network": {"cni": {"name": "custom"}}}},
        {"machine": {"kubelet": {"extraConfig": KUBELET}}},
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

    def push(self, name: str, target: str = "") -> None:
        """Push an image of the layout.

        Args:
            name: its reference.
            target: another reference to push it to.
        """
        repository = (target or name).partition("/")[2]
        processes.run(
            *self.engine.enter, "skopeo", "copy", "--all", "--quiet", "--dest-tls-verify=false",
            f"oci:{kubernetes_images.LAYOUT}:{name}",
            f"docker://{host.LOOPBACK}:{self.port}/{repository}",
            within_s=PUSHED_WITHIN_S,
        )  # fmt: skip

    def push_as(self, references: Iterable[str]) -> None:
        """Push the images of a cluster under the tags of another version of Kubernetes.

        They are the same programs, because building another version takes minutes.

        Args:
            references: the images of that version. Their repositories end in the same name.
        """
        built = {_program(name): name for name in kubernetes_images.names()}
        for reference in references:
            if name := built.get(_program(reference)):
                self.push(name, reference)

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
        made = Site(engine, client, upstream, port)
        for name in (*kubernetes_images.names(), OLDER_NODE):
            made.push(name)
        yield made


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


@dataclass(frozen=True, slots=True)
class Registries:
    """The registries themselves, for nodes that do not use their mirrors.

    Attributes:
        patch: a patch of the machine configuration with their address and their CA.
    """

    patch: str
    _container: Container

    def asked_for(self, image: str) -> bool:
        """Whether a node has asked for an image by tag."""
        repository, _, tag = image.partition("/")[2].partition(":")
        return f"/v2/{repository}/manifests/{tag} " in self._container.logs().decode()


@contextmanager
def registries(site: Site, folder: Path) -> Iterator[Registries]:
    """Serve the images of the upstream as the registries do: over TLS, under their names.

    Args:
        site: the engine, and the upstream.
        folder: a folder for the certificate.
    """
    now = datetime.now(UTC)
    authority = certificate_authority.issue_authority("the registries themselves", now)
    server = certificate_authority.issue_server(authority, REGISTRIES, now)
    (folder / "server.crt").write_text(server.certificate)
    (folder / "server.key").write_text(server.key)
    container = site.client.containers.run(
        IMAGE,
        detach=True,
        user="0",
        ports={"5000/tcp": (site.gateway, 443)},
        volumes={str(folder): {"bind": "/tls", "mode": "ro"}},
        volumes_from=[f"{site.upstream.id}:ro"],
        environment={
            "OTEL_TRACES_EXPORTER": "none",
            "REGISTRY_HTTP_TLS_CERTIFICATE": "/tls/server.crt",
            "REGISTRY_HTTP_TLS_KEY": "/tls/server.key",
        },
    )
    hosts = [{"ip": site.gateway, "aliases": list(REGISTRIES)}]
    trusted = {
        "apiVersion": "v1alpha1",
        "kind": "TrustedRootsConfig",
        "name": "registries",
        "certificates": authority.certificate,
    }
    patch = yaml.safe_dump_all([{"machine": {"network": {"extraHostEntries": hosts}}}, trusted])
    try:
        eventually(
            lambda: b"listening on" in container.logs(),
            within_s=ANSWERS_WITHIN_S,
            what="the registries answer",
        )
        yield Registries(patch, container)
    finally:
        container.remove(force=True)


@contextmanager
def warm_stack(site: Site, folder: Path) -> Iterator[CacheStack]:
    """A stack whose caches hold the images of a cluster; it is destroyed at the end.

    Args:
        site: the engine.
        folder: parent of its directory.
    """
    with stack(site, folder) as made:
        made.configure({"references": list(kubernetes_images.names())}, "images")
        made.up()
        yield made


def kubectl(site: Site, kubeconfig: str | Path, *arguments: str) -> str:
    """Run kubectl, and return its output.

    Raises:
        CommandFailedError: it failed.
    """
    command = (*site.engine.enter, "kubectl", "--kubeconfig", kubeconfig, *arguments)
    return processes.run(*command, within_s=KUBECTL_WITHIN_S)


def announced(site: Site, kubeconfig: str | Path) -> Any:
    """What a cluster tells tools about the local registry; None if it tells nothing.

    The names are from KEP-1755, "Communicating a local registry".
    """
    config_map = ("configmap", "local-registry-hosting", "--namespace", "kube-public")
    options = ("--ignore-not-found", "--output", "json")
    found = kubectl(site, kubeconfig, "get", *config_map, *options)
    return yaml.safe_load(json.loads(found)["data"]["localRegistryHosting.v1"]) if found else None


def of_next_version() -> list[str]:
    """The images of a cluster with the next version of Kubernetes."""
    this_version = f":{kubernetes_images.KUBELET.version}"
    following = f":v{NEXT_VERSION}"
    return [name.replace(this_version, following) for name in kubernetes_images.names()]


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


def _program(reference: str) -> str:
    return reference.rpartition("/")[2].partition(":")[0]


def _content(descriptor: dict[str, Any]) -> dict[str, Any]:
    path = kubernetes_images.LAYOUT / "blobs" / descriptor["digest"].replace(":", "/")
    content: dict[str, Any] = json.loads(path.read_text())
    return content
