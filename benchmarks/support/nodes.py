"""Simulated nodes: each pulls all images as containerd does, and keeps nothing.

They use the standard library's HTTP client: any other would be slower than the caches.
"""

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urlsplit

from benchmarks.support.image_set import REFERENCES
from talos_registry_cache.registry import manifests, reference
from talos_registry_cache.registry.manifests import Descriptor, Index
from talos_registry_cache.registry.reference import Reference

PULLS_AT_ONCE = 4
SILENCE_S = 300
CHUNK = 1 << 20


class PullError(Exception):
    """A node cannot pull an image."""


@dataclass(frozen=True, slots=True)
class Boot:
    """The result of booting nodes.

    Attributes:
        seconds: time until all nodes had all images.
        size: bytes of blobs that the nodes received together.
    """

    seconds: float
    size: int


def boot(nodes: Sequence[Mapping[str, str]]) -> Boot:
    """Let new nodes pull all images at the same time, and check every digest.

    Args:
        nodes: the URL of each registry's cache by the registry's host, for each node.

    Raises:
        PullError: a node cannot pull.
    """
    stop = threading.Event()
    started = time.monotonic()
    booting = [_Node(endpoints, stop) for endpoints in nodes]
    images = [reference.parse(text) for text in REFERENCES]
    # A thread for each pull, so that a slow node does not block the others.
    with ThreadPoolExecutor(len(nodes) * len(images)) as pool:
        pulls = [pool.submit(node.pull, image) for image in images for node in booting]
        try:
            done, not_done = wait(pulls, return_when=FIRST_EXCEPTION)
            for pull in not_done:
                pull.cancel()
            for pull in done:
                pull.result()
        finally:
            stop.set()
    return Boot(time.monotonic() - started, sum(node.size for node in booting))


class _Node:
    """A node. It pulls a blob that several images share once."""

    def __init__(self, endpoints: Mapping[str, str], stop: threading.Event) -> None:
        self.size = 0
        self._endpoints = endpoints
        self._stop = stop
        self._slots = threading.Semaphore(PULLS_AT_ONCE)
        self._lock = threading.Lock()
        self._begun: set[str] = set()

    def pull(self, image: Reference) -> None:
        address = urlsplit(self._endpoints[image.registry])
        connection = HTTPConnection(str(address.hostname), address.port, timeout=SILENCE_S)
        with self._slots, closing(connection):
            try:
                self._pull(connection, image)
            except (OSError, HTTPException) as error:
                raise PullError(f"{image}: {error!r}") from error

    def _pull(self, connection: HTTPConnection, image: Reference) -> None:
        manifest = self._manifest(connection, image.repository, image.target)
        if isinstance(manifest, Index):
            (one,) = manifest.manifests
            manifest = self._manifest(connection, image.repository, one.digest)
        if isinstance(manifest, Index):
            raise PullError(f"{image}: an index inside an index")
        for blob in manifest.blobs:
            if self._begin(blob):
                self._blob(connection, image.repository, blob)

    def _begin(self, blob: Descriptor) -> bool:
        with self._lock:
            is_new = blob.digest not in self._begun
            self._begun.add(blob.digest)
        return is_new

    def _manifest(
        self, connection: HTTPConnection, repository: str, target: str
    ) -> manifests.Manifest | Index:
        path = f"/v2/{repository}/manifests/{target}"
        answer = _get(connection, path, {"Accept": manifests.ACCEPT})
        return manifests.parse(answer.read(), answer.headers.get("Content-Type", ""))

    def _blob(self, connection: HTTPConnection, repository: str, blob: Descriptor) -> None:
        answer = _get(connection, f"/v2/{repository}/blobs/{blob.digest}", {})
        seen = hashlib.sha256()
        size = 0
        buffer = memoryview(bytearray(CHUNK))
        while count := answer.readinto(buffer):
            if self._stop.is_set():
                raise PullError("stopped")
            size += count
            seen.update(buffer[:count])
        if f"sha256:{seen.hexdigest()}" != blob.digest:
            raise PullError(f"{repository}: {blob.digest} is damaged, {size} bytes received")
        with self._lock:
            self.size += size


def _get(connection: HTTPConnection, path: str, headers: Mapping[str, str]) -> HTTPResponse:
    connection.request("GET", path, headers=dict(headers))
    answer = connection.getresponse()
    if answer.status != HTTPStatus.OK:
        said = answer.read(500).decode(errors="replace")
        raise PullError(f"{path}: {answer.status} {said}")
    return answer
