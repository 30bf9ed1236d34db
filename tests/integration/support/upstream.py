"""A real upstream registry in a container."""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urljoin

import docker
import requests
from docker import DockerClient
from docker.errors import NotFound
from docker.models.containers import Container

from components.settings import front
from components.settings.caches import DEFAULT_IMAGE
from talos_registry_cache.engine import registry_image
from tests.integration.support import host, images, network, processes
from tests.integration.support.polling import eventually

TIMEOUT_S = 150
METRICS_PORT = 5001
SENT = "registry_http_response_size_bytes_sum"
SETTLED_AFTER_S = 0.2


def image_for(reference: str) -> str:
    """The image that the engine runs for an image in the settings."""
    client = docker.from_env()
    try:
        return registry_image.on_engine(client, reference)
    finally:
        client.close()


IMAGE = image_for(DEFAULT_IMAGE)
FRONT_IMAGE = image_for(front.DEFAULT_IMAGE)


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image in the upstream.

    Attributes:
        repository, tag: its name in the upstream.
        digest: digest of the tagged index or manifest.
    """

    repository: str
    tag: str
    digest: str

    @property
    def name(self) -> str:
        """Repository and tag, as in an image reference after the registry host."""
        return f"{self.repository}:{self.tag}"


class Server:
    """A registry that images can be pushed to.

    Attributes:
        address, port: where it listens.
        url: its URL.
    """

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self.url = f"http://{address}:{port}"

    def push_index(self) -> Pushed:
        """Push a new multi-platform image."""
        return self.push(images.oci_index(host.architecture(), host.other_architecture()))

    def push(self, index: images.Index) -> Pushed:
        """Push an image under a new name."""
        return self._push(index, _new_repository())

    def move(self, image: Pushed) -> Pushed:
        """Push a new image under the tag of another one."""
        index = images.oci_index(host.architecture(), host.other_architecture())
        return self._push(index, image.repository)

    def refer_to(self, image: Pushed) -> Pushed:
        """Push an index of referrers under the tag that an image has for it."""
        index = images.oci_index(host.architecture())
        return self._push(index, image.repository, image.digest.replace(":", "-"))

    def push_referrer(self, image: Pushed) -> Pushed:
        """Push a manifest without a tag that has an image as its subject."""
        (own,) = images.oci_index(host.architecture(), sizes=(1_000,)).images.values()
        subject = {"mediaType": f"{images.OCI}.index.v1+json", "digest": image.digest, "size": 1}
        content = {**json.loads(own.manifest.content), "subject": subject}
        for blob in own.blobs:
            self._push_blob(image.repository, blob)
        manifest = images.Blob(own.manifest.media_type, json.dumps(content).encode())
        self._push_manifest(image.repository, manifest, manifest.digest)
        return Pushed(image.repository, manifest.digest, manifest.digest)

    def _push(self, index: images.Index, repository: str, tag: str = "1") -> Pushed:
        for blob in images.blobs_of(index):
            self._push_blob(repository, blob)
        for image in index.images.values():
            self._push_manifest(repository, image.manifest, image.manifest.digest)
        self._push_manifest(repository, index.manifest, tag)
        return Pushed(repository, tag, index.manifest.digest)

    def push_docker_image(self) -> Pushed:
        """Push a new image in Docker's format, for this machine's platform."""
        image = images.docker_image(host.architecture())
        repository = _new_repository()
        for blob in image.blobs:
            self._push_blob(repository, blob)
        self._push_manifest(repository, image.manifest, "1")
        return Pushed(repository, "1", image.manifest.digest)

    def wait(self) -> None:
        """Wait until the upstream answers."""
        eventually(self._answers, within_s=TIMEOUT_S, what=f"the upstream {self.url} answers")

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/v2/", timeout=2).ok
        except requests.RequestException:
            return False

    def _push_blob(self, repository: str, blob: images.Blob) -> None:
        base = f"{self.url}/v2/{repository}/blobs/uploads/"
        with requests.post(base, timeout=TIMEOUT_S) as started:
            started.raise_for_status()
            location = urljoin(base, started.headers["Location"])
        with requests.put(
            location, params={"digest": blob.digest}, data=blob.content, timeout=TIMEOUT_S
        ) as ended:
            ended.raise_for_status()

    def _push_manifest(self, repository: str, manifest: images.Blob, reference: str) -> None:
        with requests.put(
            f"{self.url}/v2/{repository}/manifests/{reference}",
            data=manifest.content,
            headers={"Content-Type": manifest.media_type},
            timeout=TIMEOUT_S,
        ) as answer:
            answer.raise_for_status()
            assert answer.headers["Docker-Content-Digest"] == manifest.digest


class Upstream(Server):
    """A registry without proxy mode, in a container."""

    def __init__(self, container: Container, address: str, port: int) -> None:
        super().__init__(address, port)
        self._container = container

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stop the upstream: connections are refused. Start it again at the end."""
        self._container.stop(timeout=1)
        try:
            yield
        finally:
            self._container.start()
            self.wait()

    def limit(self, mbit: int) -> None:
        """Limit its outgoing traffic in megabits per second, until it is stopped."""
        self._container.reload()
        pid = self._container.attrs["State"]["Pid"]
        processes.run("nsenter", f"--net=/proc/{pid}/ns/net", *network.limit_command(mbit))

    def sent(self) -> int:
        """The bytes sent since its start, from its own metrics, once it is idle."""
        before, now = -1, self._sent()
        while now != before:
            time.sleep(SETTLED_AFTER_S)
            before, now = now, self._sent()
        return now

    def _sent(self) -> int:
        self._container.reload()
        networks = self._container.attrs["NetworkSettings"]["Networks"]
        url = f"http://{networks['bridge']['IPAddress']}:{METRICS_PORT}/metrics"
        return sent_in(requests.get(url, timeout=TIMEOUT_S).text)


def sent_in(metrics: str) -> int:
    """The bytes that a registry has sent, from the text of its metrics."""
    lines = metrics.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith(SENT))


@contextmanager
def running(engine: DockerClient, address: str = "") -> Iterator[Upstream]:
    """Run an upstream, and remove it with all its images at the end.

    Args:
        engine: the engine.
        address: the address of this machine to publish it on. By default that of the engine's
            bridge, which containers can reach.
    """
    name = f"it-upstream-{secrets.token_hex(4)}"
    address, port = address or host.bridge_gateway(engine), host.free_port()
    try:
        container = engine.containers.run(
            IMAGE,
            name=name,
            detach=True,
            ports={"5000/tcp": (address, port)},
            environment={"OTEL_TRACES_EXPORTER": "none", "REGISTRY_LOG_LEVEL": "error"},
        )
        upstream = Upstream(container, address, port)
        upstream.wait()
        yield upstream
    finally:
        with suppress(NotFound):
            engine.containers.get(name).remove(force=True, v=True)


def _new_repository() -> str:
    return f"team-{secrets.token_hex(3)}/app"
