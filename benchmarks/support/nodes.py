"""Simulated nodes: each asks for every image that it needs, as containerd does, and keeps nothing.

They read with the standard library's client, since any other would be the slowest part of what is
measured.
"""

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
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
    """A node could not pull; the message says what and why."""


@dataclass(frozen=True, slots=True)
class Boot:
    """What it took until all nodes had everything.

    Attributes:
        seconds: how long.
        size: bytes of blobs that the nodes received together.
    """

    seconds: float
    size: int


@dataclass(frozen=True, slots=True)
class Start:
    """How a node starts.

    Attributes:
        endpoints: where it asks each registry, by its host.
        after_s: seconds that it waits before.
    """

    endpoints: Mapping[str, str]
    after_s: float = 0.0


def boot(nodes: int, endpoints: Mapping[str, str], *, checked: bool = True) -> Boot:
    """Let nodes that have nothing pull all images at the same time.

    Args:
        nodes: how many.
        endpoints: where each registry is asked, by its host.
        checked: whether digests are checked; else sizes only, to measure what serves them.

    Raises:
        PullError: a node could not.
    """
    return boot_each([Start(endpoints)] * nodes, checked=checked)


def boot_each(starts: Sequence[Start], *, checked: bool = True) -> Boot:
    """Let nodes that have nothing pull all images, each by its own way and at its own time.

    Args:
        starts: how each starts.
        checked: whether digests are checked; else sizes only, to measure what serves them.

    Raises:
        PullError: a node could not.
    """
    stop = threading.Event()
    started = time.monotonic()
    # A thread for each pull, so that those of a node which waits keep no other from its own.
    with ThreadPoolExecutor(len(starts) * len(REFERENCES)) as pool:
        booting = [
            _Node(start.endpoints, started + start.after_s, stop, checked=checked)
            for start in starts
        ]
        pulls = [
            pool.submit(node.pull, reference.parse(text)) for text in REFERENCES for node in booting
        ]
        try:
            _finish(pulls)
        finally:
            stop.set()
    return Boot(time.monotonic() - started, sum(node.size for node in booting))


def _finish(pulls: list[Future[None]]) -> None:
    done, not_done = wait(pulls, return_when=FIRST_EXCEPTION)
    for pull in not_done:
        pull.cancel()
    for pull in done:
        pull.result()


class _Node:
    """A node; each blob that its images share is pulled once."""

    def __init__(
        self, endpoints: Mapping[str, str], from_s: float, stop: threading.Event, *, checked: bool
    ) -> None:
        self.size = 0
        self._endpoints = endpoints
        self._from_s = from_s
        self._stop = stop
        self._checked = checked
        self._slots = threading.Semaphore(PULLS_AT_ONCE)
        self._lock = threading.Lock()
        self._begun: set[str] = set()

    def pull(self, image: Reference) -> None:
        if self._stop.wait(max(0.0, self._from_s - time.monotonic())):
            raise PullError("stopped")
        address = urlsplit(self._endpoints[image.registry])
        assert address.hostname is not None  # noqa: S101 - made by us
        connection = HTTPConnection(address.hostname, address.port, timeout=SILENCE_S)
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
            if self._checked:
                seen.update(buffer[:count])
        if size != blob.size or (self._checked and f"sha256:{seen.hexdigest()}" != blob.digest):
            raise PullError(f"{blob.digest} of {repository} came damaged: {size} bytes")
        with self._lock:
            self.size += size


def _get(connection: HTTPConnection, path: str, headers: Mapping[str, str]) -> HTTPResponse:
    connection.request("GET", path, headers=dict(headers))
    answer = connection.getresponse()
    if answer.status != HTTPStatus.OK:
        said = answer.read(500).decode(errors="replace")
        raise PullError(f"{path}: {answer.status} {said}")
    return answer
