"""Images of the sizes that a Talos cluster needs, with random content."""

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from components.image_set import ARCHITECTURES

MB = 1_000_000
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

# Compressed layers in MB, about as in Talos 1.11 with Kubernetes 1.34: 440 MB in all.
_IMAGES: Mapping[str, tuple[float, ...]] = {
    "ghcr.io/siderolabs/installer:v1.11.5": (105.0, 87.0, 8.5),
    "ghcr.io/siderolabs/kubelet:v1.34.1": (9.0, 61.0),
    "ghcr.io/siderolabs/flannel:v0.27.4": (4.0, 11.0, 17.0),
    "gcr.io/etcd-development/etcd:v3.6.5": (1.5, 13.5, 7.5),
    "registry.k8s.io/coredns/coredns:v1.12.4": (1.5, 21.0),
    "registry.k8s.io/kube-apiserver:v1.34.1": (25.0,),
    "registry.k8s.io/kube-controller-manager:v1.34.1": (21.0,),
    "registry.k8s.io/kube-proxy:v1.34.1": (12.0, 16.5),
    "registry.k8s.io/kube-scheduler:v1.34.1": (15.5,),
    "registry.k8s.io/pause:3.10.1": (0.3,),
}
# These share a base layer, as Kubernetes' own images do.
_ON_BASE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
_BASE_MB = 2.0

REFERENCES = tuple(_IMAGES)
REGISTRIES = tuple(dict.fromkeys(reference.partition("/")[0] for reference in REFERENCES))


@dataclass(frozen=True, slots=True)
class Content:
    """A blob, or a manifest with its media type."""

    content: bytes
    media_type: str = ""

    @property
    def digest(self) -> str:
        """Its sha256."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    def described(self, media_type: str) -> dict[str, object]:
        """Its descriptor."""
        return {"mediaType": media_type, "digest": self.digest, "size": len(self.content)}


@dataclass(frozen=True, slots=True)
class Image:
    """An image to push.

    Attributes:
        repository, tag: its name in its registry.
        blobs: its configuration and layers.
        manifest: the manifest of its only platform.
        index: the index that the tag names.
    """

    repository: str
    tag: str
    blobs: tuple[Content, ...]
    manifest: Content
    index: Content


def images(scale: float) -> Iterator[Image]:
    """Generate the images one by one, to keep only one in memory.

    Args:
        scale: factor of the sizes; 1 for about 440 MB in all.
    """
    base = _layer(_BASE_MB * scale)
    for reference, sizes in _IMAGES.items():
        below = [base] if any(name in reference for name in _ON_BASE) else []
        yield _image(reference, (*below, *(_layer(size * scale) for size in sizes)))


def image(reference: str, sizes: Iterable[float]) -> Image:
    """Generate an image whose layers have these sizes in MB."""
    return _image(reference, tuple(map(_layer, sizes)))


def _image(reference: str, layers: tuple[Content, ...]) -> Image:
    _, _, name = reference.partition("/")
    repository, _, tag = name.partition(":")
    machine = platform.machine()
    node = {"os": "linux", "architecture": ARCHITECTURES.get(machine, machine)}
    diffs = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
    config = Content(json.dumps({**node, "rootfs": diffs, "name": name}).encode())
    manifest = _json(
        MANIFEST, config=config.described(CONFIG), layers=[one.described(LAYER) for one in layers]
    )
    index = _json(INDEX, manifests=[{**manifest.described(MANIFEST), "platform": node}])
    return Image(repository, tag, (config, *layers), manifest, index)


def _layer(megabytes: float) -> Content:
    return Content(os.urandom(int(megabytes * MB)))


def _json(media_type: str, **fields: object) -> Content:
    content = {"schemaVersion": 2, "mediaType": media_type, **fields}
    return Content(json.dumps(content).encode(), media_type)
