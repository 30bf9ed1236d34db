"""Small images: manifests, configurations and layers, as bytes with a digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from talos_registry_cache.registry.manifests import Descriptor

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob or manifest."""

    content: bytes
    media_type: str = OCI_LAYER
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Its digest."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    @property
    def descriptor(self) -> Descriptor:
        """Its descriptor."""
        return Descriptor(self.media_type, self.digest, len(self.content))

    @property
    def entry(self) -> dict[str, Any]:
        """Its entry in a manifest or index."""
        size = len(self.content)
        return {"mediaType": self.media_type, "digest": self.digest, "size": size, **self.extra}


@dataclass(frozen=True, slots=True)
class Built:
    """The content of a tag: its manifest first, then other manifests and the blobs."""

    manifests: Sequence[Blob]
    blobs: Sequence[Blob]

    @property
    def digest(self) -> str:
        """The digest of the tag."""
        return self.manifests[0].digest


def config(platform: str = "linux/amd64", media_type: str = OCI_CONFIG) -> Blob:
    """An image configuration."""
    os, architecture, *variant = platform.split("/")
    values = {"os": os, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
    return Blob(json.dumps(values).encode(), media_type)


def image(*layers: Blob, platform: str = "linux/amd64") -> Built:
    """An OCI image without an index."""
    own = config(platform)
    return Built([_manifest(OCI_MANIFEST, own, layers)], [own, *layers])


def docker_image(*layers: Blob, platform: str = "linux/amd64") -> Built:
    """An image with Docker's media types."""
    own = config(platform, DOCKER_CONFIG)
    return Built([_manifest(DOCKER_MANIFEST, own, layers)], [own, *layers])


def index(images: Mapping[str, Built], *others: Blob, media_type: str = OCI_INDEX) -> Built:
    """An index of images by platform, and of other entries such as attestations."""
    entries = [
        built.manifests[0].entry | {"platform": platform_entry(name)}
        for name, built in images.items()
    ]
    content = _json(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "manifests": [*(other.entry for other in others), *entries],
        }
    )
    manifests = [built.manifests[0] for built in images.values()]
    blobs = [blob for built in images.values() for blob in built.blobs]
    return Built([Blob(content, media_type), *manifests], blobs)


def attestation(of: Built) -> Blob:
    """An attestation manifest for an image, as BuildKit adds it to an index."""
    return Blob(
        b"{}",
        OCI_MANIFEST,
        {
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": of.digest,
            },
        },
    )


def platform_entry(platform: str) -> dict[str, str]:
    """The platform in an index entry."""
    return dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))


def _manifest(media_type: str, own: Blob, layers: Sequence[Blob]) -> Blob:
    content = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": own.entry,
        "layers": [layer.entry for layer in layers],
    }
    return Blob(_json(content), media_type)


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()
