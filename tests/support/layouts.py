"""OCI image layouts made up on the spot, as `cachectl export` and other tools write them."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zstandard

from talos_registry_cache.cli.oci_layout import IMAGE_NAME, REF_NAME

OCI = "application/vnd.oci.image"
MARKER = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

Blobs = dict[str, bytes]
"""By digest."""
Files = Mapping[str, bytes]
"""By name."""


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def descriptor(content: bytes, kind: str = "", **more: Any) -> dict[str, Any]:
    media_type = f"{OCI}.{kind or 'layer'}.v1{'+json' if kind else '.tar+gzip'}"
    return {"mediaType": media_type, "digest": digest(content), "size": len(content), **more}


def image(*layers: bytes, architecture: str = "amd64") -> tuple[bytes, Blobs]:
    """A manifest, and the blobs that it needs with itself."""
    config = json.dumps({"os": "linux", "architecture": architecture}).encode()
    layers_of = [descriptor(layer) for layer in layers]
    manifest = _json("manifest", config=descriptor(config, "config"), layers=layers_of)
    return manifest, {digest(content): content for content in (config, *layers, manifest)}


def index(*manifests: bytes, **more: Any) -> bytes:
    """An index of images; each manifest has the entries that are given beside."""
    return _json("index", manifests=[descriptor(one, "manifest", **more) for one in manifests])


def _json(kind: str, **fields: Any) -> bytes:
    media_type = f"{OCI}.{kind}.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, **fields}).encode()


def names(name: str) -> dict[str, str]:
    """The annotations by which `cachectl export` names an image."""
    return {REF_NAME: name, IMAGE_NAME: name}


def files(blobs: Blobs, *entries: tuple[bytes, Mapping[str, str]]) -> dict[str, bytes]:
    """A layout.

    Args:
        blobs: its blobs.
        entries: its images, each a manifest or index, and the annotations of its entry.
    """
    described = [
        descriptor(content, "index" if b'"manifests"' in content else "manifest")
        | ({"annotations": dict(annotations)} if annotations else {})
        for content, annotations in entries
    ]
    listed = {"schemaVersion": 2, "manifests": described}
    return {
        **{f"blobs/{name.replace(':', '/')}": content for name, content in blobs.items()},
        "index.json": json.dumps(listed).encode(),
        **MARKER,
    }


def tar(layout: Files, mode: str = "w", kind: int = tarfile.USTAR_FORMAT) -> bytes:
    """A layout as a tar, as `tarfile` writes it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode, format=kind) as target:  # type: ignore[call-overload]
        for name, content in layout.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            target.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def write_folder(layout: Files, folder: Path) -> Path:
    for name, content in layout.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
