"""A pull by plain HTTP, as any client does it, which counts what came."""

import hashlib
from dataclasses import dataclass

import httpx2

from talos_registry_cache.registry import manifests
from tests.integration.support import host
from tests.integration.support.upstream import Pushed

TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull has brought, all of it checked against its digest.

    Attributes:
        digest: what the tag names.
        blobs: the digests of the blobs.
        size: bytes of the blobs.
    """

    digest: str
    blobs: tuple[str, ...]
    size: int


def pull(endpoint: str, image: Pushed, http: httpx2.Client | None = None) -> Pulled:
    """Pull what this machine's platform has of an image.

    Args:
        endpoint: URL of the registry.
        image: the image.
        http: a client that knows how to sign in, or whom to trust.

    Raises:
        httpx2.HTTPError: an answer was an error, or did not come.
    """
    if http is None:
        with httpx2.Client(trust_env=False, timeout=TIMEOUT_S) as plain:
            return pull(endpoint, image, plain)
    repository = f"{endpoint}/v2/{image.repository}"
    named, digest = _manifest(http, repository, image.tag)
    manifest = named
    if isinstance(named, manifests.Index):
        (mine,) = (
            entry
            for entry in named.manifests
            if entry.platform and entry.platform.architecture == host.architecture()
        )
        manifest, _ = _manifest(http, repository, mine.digest)
    assert isinstance(manifest, manifests.Manifest)
    blobs = tuple(blob.digest for blob in manifest.blobs)
    return Pulled(digest, blobs, sum(_blob(http, repository, blob) for blob in blobs))


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
