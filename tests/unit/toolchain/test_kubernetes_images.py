"""The OCI image layout with the images of a Talos cluster."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from toolchain import kubernetes_images

IMAGE = "registry.k8s.io/tool:v1"
SETTINGS = {"Entrypoint": ["/tool"]}


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    writer = kubernetes_images._Layout(tmp_path)
    writer.add(IMAGE, SETTINGS, [b"layer"])
    writer.close()
    return tmp_path


def _content(layout: Path, descriptor: dict[str, Any]) -> dict[str, Any]:
    path = layout / "blobs" / descriptor["digest"].replace(":", "/")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _manifests(layout: Path) -> list[dict[str, Any]]:
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifests: list[dict[str, Any]] = _content(layout, entry)["manifests"]
    return manifests


def test_an_image_is_an_index_of_two_platforms_under_its_name(layout: Path) -> None:
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": IMAGE}
    architectures = {one["platform"]["architecture"] for one in _manifests(layout)}
    assert architectures == {"amd64", "arm64"}


def test_each_platform_runs_the_program_with_its_settings(layout: Path) -> None:
    for descriptor in _manifests(layout):
        config = _content(layout, _content(layout, descriptor)["config"])
        assert config["config"] == SETTINGS
        assert config["architecture"] == descriptor["platform"]["architecture"]


def test_a_blob_is_called_by_its_digest(layout: Path) -> None:
    blobs = list((layout / "blobs" / "sha256").iterdir())
    assert len(blobs) == 7
    assert all(hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name for blob in blobs)


def test_the_images_of_servers_have_the_version_of_their_module() -> None:
    names = kubernetes_images.names()
    version = kubernetes_images.KUBELET.version
    for server in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
        assert f"registry.k8s.io/{server}:{version}" in names
    assert f"ghcr.io/siderolabs/kubelet:{version}" in names
