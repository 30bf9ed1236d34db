"""A pull with plain HTTP requests that counts the received bytes."""

import hashlib
from dataclasses import dataclass

import httpx2

from talos_registry_cache.registry import manifests
from tests.integration.support import host
from tests.integration.support.upstream import Pushed

TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Pulled:
    """The result of a pull; all content matches its digest.

    Attributes:
        digest: the digest of the tag.
        blobs: digests of the blobs.
        size: size of the blobs in bytes.
    """

    digest: str
    blobs: tuple[str, ...]
    size: int


def pull(endpoint: str, image: Pushed, http: httpx2.Client | None = None) -> Pulled:
    """Pull an image for this machine's platform.

    Args:
        endpoint: URL of the registry.
        image: the image.
        http: a client with credentials or a CA, if the registry needs them.

    Raises:
        httpx2.HTTPError: a request failed.
    """
    if http is None:
        with httpx2.Client(trust_env=False, timeout=TIMEOUT_S) as plain:
            return pull(endpoint, image, plain)
    repository = f"{endpoint}/v2/{image.repository}"
    manifest, digest = _for_this_machine(http, repository, image.tag)
    blobs = tuple(blob.digest for blob in manifest.blobs)
    return Pulled(digest, blobs, sum(_blob(http, repository, blob) for blob in blobs))


def largest_blob(endpoint: str, image: Pushed) -> str:
    """The digest of the largest blob of an image for this machine's platform."""
    with httpx2.Client(trust_env=False, timeout=TIMEOUT_S) as http:
        repository = f"{endpoint}/v2/{image.repository}"
        manifest, _ = _for_this_machine(http, repository, image.tag)
    return max(manifest.blobs, key=lambda blob: blob.size).digest


def _for_this_machine(
    http: httpx2.Client, repository: str, tag: str
) -> tuple[manifests.Manifest, str]:
    """The manifest for this machine's platform, and the digest of the tag."""
    named, digest = _manifest(http, repository, tag)
    manifest = named
    if isinstance(named, manifests.Index):
        (mine,) = (
            entry
            for entry in named.manifests
            if entry.platform and entry.platform.architecture == host.architecture()
        )
        manifest, _ = _manifest(http, repository, mine.digest)
    assert isinstance(manifest, manifests.Manifest)
    return manifest, digest


def _manifest(
    http: httpx2.Client, repository: str, target: str
) -> tuple[manifests.Manifest | manifests.Index, str]:
    answer = http.get(f"{repository}/manifests/{target}", headers={"Accept": manifests.ACCEPT})
    content = answer.raise_for_status().content
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert answer.headers["Docker-Content-Digest"] == digest
    return manifests.parse(content, answer.headers["Content-Type"]), digest


def _blob(http: httpx2.Client, repository: str, digest: str) -> int:
    seen = hashlib.sha256()
    size = 0
    with http.stream("GET", f"{repository}/blobs/{digest}") as answer:
        for chunk in answer.raise_for_status().iter_bytes():
            seen.update(chunk)
            size += len(chunk)
    assert f"sha256:{seen.hexdigest()}" == digest, f"{digest} came damaged: {size} bytes"
    return size
