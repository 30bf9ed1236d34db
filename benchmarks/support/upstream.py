"""An upstream registry behind a link of a known rate."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx2
from docker.models.containers import Container

from benchmarks.support import image_set
from benchmarks.support.commands import run
from benchmarks.support.image_set import Content, Image
from benchmarks.support.session import CannotRunError
from benchmarks.support.site import Site, metrics

TOOLS = ("nsenter", "tc")
SENT = "registry_http_response_size_bytes_sum"
STARTS_WITHIN_S = 20
SETTLES_WITHIN_S = 30
POLL_S = 0.2


class Upstream:
    """A registry in a container.

    Attributes:
        url: its URL, for containers and this machine.
        copy_size: bytes of blobs that a new node needs.
    """

    def __init__(self, container: Container, url: str) -> None:
        self.url = url
        self.copy_size = 0
        self._container = container

    def fill(self, scale: float) -> None:
        """Push the images."""
        self.copy_size = copy_size(fill(self.url, scale))

    def limit(self, mbit: int) -> None:
        """Limit the rate at which it sends.

        Raises:
            CannotRunError: this machine cannot.
        """
        # A bucket must hold what is sent between two ticks of the clock.
        burst = max(64_000, mbit * 1000)
        pid = self._container.attrs["State"]["Pid"]
        run(
            "nsenter", f"--net=/proc/{pid}/ns/net",
            "tc", "qdisc", "replace", "dev", "eth0", "root",
            "tbf", "rate", f"{mbit}mbit", "burst", str(burst), "latency", "400ms",
        )  # fmt: skip

    def silence(self) -> None:
        """Let it accept connections and never answer."""
        self._container.kill("SIGSTOP")

    def sent(self) -> int:
        """Bytes it has sent so far, by its own metrics, once it is idle."""
        deadline = time.monotonic() + SETTLES_WITHIN_S
        before, now = -1, self._sent()
        while now != before and time.monotonic() < deadline:
            time.sleep(POLL_S)
            before, now = now, self._sent()
        return now

    def wait(self) -> None:
        """Wait until it answers."""
        wait_for(self.url, self._container)
        self._container.reload()

    def _sent(self) -> int:
        counted = metrics(self._container, SENT)
        if counted is None:
            raise CannotRunError("the upstream has no metrics")
        return counted


@contextmanager
def running(site: Site, scale: float) -> Iterator[Upstream]:
    """Run an upstream with images.

    Args:
        site: where.
        scale: factor of the sizes; 1 for a Talos cluster's.
    """
    with empty(site) as upstream:
        upstream.fill(scale)
        yield upstream


@contextmanager
def empty(site: Site) -> Iterator[Upstream]:
    """Run an upstream without images."""
    (port,) = site.free_ports(1)
    with site.scope() as scope:
        quiet = {"OTEL_TRACES_EXPORTER": "none", "REGISTRY_LOG_LEVEL": "error"}
        container = scope.run("upstream", {5000: port}, environment=quiet)
        upstream = Upstream(container, f"http://{site.address}:{port}")
        upstream.wait()
        yield upstream


def fill(url: str, scale: float) -> Mapping[str, int]:
    """Push new images to a registry.

    Args:
        url: the registry's URL.
        scale: factor of the sizes; 1 for a Talos cluster's.

    Returns:
        the size of each blob, by its path in the registry's API.
    """
    sizes: dict[str, int] = {}
    with httpx2.Client(base_url=url, trust_env=False, timeout=60) as http:
        for image in image_set.images(scale):
            push(http, image)
            for blob in image.blobs:
                sizes[f"/v2/{image.repository}/blobs/{blob.digest}"] = len(blob.content)
    return sizes


def copy_size(blobs: Mapping[str, int]) -> int:
    """Bytes that a new node needs; a layer that several images share counts once."""
    return sum({path.rpartition("/")[2]: size for path, size in blobs.items()}.values())


def wait_for(url: str, container: Container) -> None:
    """Wait until a registry answers.

    Raises:
        CannotRunError: it does not in time.
    """
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        try:
            if httpx2.get(f"{url}/v2/", trust_env=False).is_success:
                return
        except httpx2.TransportError:
            pass
        time.sleep(POLL_S)
    said = container.logs(tail=5).decode(errors="replace").strip()
    raise CannotRunError(f"{container.name} does not answer at {url}: {said or 'no log'}")


def push(http: httpx2.Client, image: Image) -> None:
    """Push an image to the registry at the base URL of a client."""
    for blob in image.blobs:
        started = http.post(f"/v2/{image.repository}/blobs/uploads/").raise_for_status()
        location = httpx2.URL(started.headers["Location"])
        location = location.copy_merge_params({"digest": blob.digest})
        http.put(location, content=blob.content).raise_for_status()
    _push_manifest(http, image.repository, image.manifest.digest, image.manifest)
    _push_manifest(http, image.repository, image.tag, image.index)


def _push_manifest(http: httpx2.Client, repository: str, target: str, content: Content) -> None:
    headers = {"Content-Type": content.media_type}
    url = f"/v2/{repository}/manifests/{target}"
    http.put(url, content=content.content, headers=headers).raise_for_status()
