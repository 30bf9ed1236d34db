"""Container images with random content, so that no two share a layer."""

import gzip
import hashlib
import io
import json
import secrets
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LAYER_SIZES = (1_000, 300_000, 5_000_000)

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"


@dataclass(frozen=True, slots=True)
class Blob:
    """Content that a registry stores by its digest."""

    media_type: str
    content: bytes

    @property
    def digest(self) -> str:
        """The digest."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    @property
    def descriptor(self) -> dict[str, Any]:
        """The descriptor in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content)}


@dataclass(frozen=True, slots=True)
class Image:
    """An image for one platform."""

    architecture: str
    manifest: Blob
    blobs: Sequence[Blob]


@dataclass(frozen=True, slots=True)
class Index:
    """An image for several platforms."""

    manifest: Blob
    images: Mapping[str, Image]


def oci_index(*architectures: str, sizes: Sequence[int] = LAYER_SIZES) -> Index:
    """Create an OCI index of images for these architectures, with layers of these sizes."""
    images = {name: _image(name, sizes, oci=True) for name in architectures}
    manifests = [
        image.manifest.descriptor | {"platform": {"os": "linux", "architecture": name}}
        for name, image in images.items()
    ]
    return Index(_json(f"{OCI}.index.v1+json", schemaVersion=2, manifests=manifests), images)


def docker_image(architecture: str, sizes: Sequence[int] = LAYER_SIZES) -> Image:
    """Create an image with a Docker schema 2 manifest."""
    return _image(architecture, sizes, oci=False)


def _image(architecture: str, sizes: Sequence[int], *, oci: bool) -> Image:
    archives = [archive(f"file-{number}", size) for number, size in enumerate(sizes)]
    layer_type = f"{OCI}.layer.v1.tar+gzip" if oci else f"{DOCKER}.image.rootfs.diff.tar.gzip"
    layers = [Blob(layer_type, gzip.compress(tar, 1)) for tar in archives]
    config = _json(
        f"{OCI}.config.v1+json" if oci else f"{DOCKER}.container.image.v1+json",
        in_content=False,
        os="linux",
        architecture=architecture,
        config={"Cmd": ["/file-0"]},
        rootfs={"type": "layers", "diff_ids": [Blob("", tar).digest for tar in archives]},
        history=[{"created_by": f"layer {number}"} for number in range(len(layers))],
    )
    manifest = _json(
        f"{OCI}.manifest.v1+json" if oci else f"{DOCKER}.distribution.manifest.v2+json",
        schemaVersion=2,
        config=config.descriptor,
        layers=[layer.descriptor for layer in layers],
    )
    return Image(architecture, manifest, [config, *layers])


def archive(name: str, size: int) -> bytes:
    """Create a tar archive with one file of random content."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        tar.addfile(*_random_file(name, size))
    return output.getvalue()


def _random_file(name: str, size: int) -> tuple[tarfile.TarInfo, io.BytesIO]:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry, io.BytesIO(secrets.token_bytes(size))


def _json(media_type: str, *, in_content: bool = True, **fields: Any) -> Blob:
    content = ({"mediaType": media_type} if in_content else {}) | fields
    return Blob(media_type, json.dumps(content).encode())


def blobs_of(index: Index) -> Iterator[Blob]:
    """The configurations and layers of all images of an index."""
    for image in index.images.values():
        yield from image.blobs
