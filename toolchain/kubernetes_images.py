"""The images of a Talos cluster, built from Go modules into an OCI image layout.

`make cluster-test` pushes them to its upstream under the names of the official images. Each is an
index of two platforms. The image for the other platform is a placeholder without a program.
"""

import gzip
import hashlib
import io
import json
import platform
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain import debian, golang, layer, talos_node
from toolchain.paths import CACHE
from toolchain.report import step

KUBERNETES = "k8s.io/kubernetes"
COREDNS_MODULE = "github.com/coredns/coredns"
ETCD_MODULE = "go.etcd.io/etcd/server/v3"

KUBELET, APISERVER, CONTROLLER_MANAGER, SCHEDULER, PROXY, KUBECTL = (
    golang.Program(
        name=name,
        package=f"{KUBERNETES}/cmd/{name}",
        module=KUBERNETES,
        version_symbol="k8s.io/component-base/version.gitVersion",
        pinned_in="kubernetes",
    )
    for name in (
        "kubelet",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubectl",
    )
)
ETCD = golang.Program(name="etcd", package=ETCD_MODULE, module=ETCD_MODULE)
COREDNS = golang.Program(name="coredns", package=".", module=COREDNS_MODULE)
PAUSE = golang.Program(name="pause", package="./pause", pinned_in="talos-helpers")
# The version that Talos 1.13 names.
PAUSE_VERSION = "3.10.1"
# The nodes of a cluster run the first one. The second one is older than RegistryMirrorConfig.
TALOS_VERSIONS = (talos_node.MACHINED, talos_node.MACHINED_1_11)

FOLDER = CACHE / "kubernetes-images"
PROGRAMS = FOLDER / "bin"
LAYOUT = FOLDER / "layout"

# By machine, as Python names it.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
OCI = "application/vnd.oci.image"
REF_NAME = "org.opencontainers.image.ref.name"
UNPRIVILEGED = "65535:65535"

# The kubelet runs mount and umount.
APPLETS = ("cat", "mount", "sh", "umount")
BASE_FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "usr", "usr/bin", "usr/lib", "var")
BASE_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib",
    "usr/sbin": "bin",
    "var/run": "/run",
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image with one program.

    Attributes:
        name: its reference.
        program: the program that it runs.
        entrypoint: the path of the program.
        user: the user that runs it, or "" for root.
        needs_base: whether the program runs other programs.
    """

    name: str
    program: golang.Program
    entrypoint: str
    user: str = ""
    needs_base: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """How a container runs it."""
        environment = {"Env": ["PATH=/usr/local/bin:/usr/bin"]}
        user = {"User": self.user} if self.user else {}
        return {"Entrypoint": [self.entrypoint], **environment, **user}


def images() -> tuple[Image, ...]:
    """Return the images of Kubernetes, etcd, CoreDNS and the pause container."""
    registry = "registry.k8s.io"
    return (
        *(_image(registry, one) for one in (APISERVER, CONTROLLER_MANAGER, SCHEDULER, ETCD)),
        _image(registry, PROXY, needs_base=True),
        _image("ghcr.io/siderolabs", KUBELET, needs_base=True),
        Image(f"{registry}/coredns/coredns:{COREDNS.version}", COREDNS, "/coredns"),
        Image(f"{registry}/pause:{PAUSE_VERSION}", PAUSE, "/pause", user=UNPRIVILEGED),
    )


def _image(prefix: str, program: golang.Program, *, needs_base: bool = False) -> Image:
    name = f"{prefix}/{program.name}:{program.version}"
    return Image(name, program, f"/usr/local/bin/{program.name}", needs_base=needs_base)


def names() -> tuple[str, ...]:
    """Return the references of the images of a cluster."""
    return (talos_node.image(), *(image.name for image in images()))


def ensure() -> Path:
    """Build the images and kubectl, unless they exist; return the folder of the layout."""
    nodes = {talos_node.image(one): talos_node.ensure(one) for one in TALOS_VERSIONS}
    golang.ensure(KUBECTL)
    programs = [golang.ensure(image.program, PROGRAMS) for image in images()]
    index = LAYOUT / "index.json"
    newest = max(path.stat().st_mtime for path in (*nodes.values(), *programs, Path(__file__)))
    if index.exists() and index.stat().st_mtime >= newest:
        return LAYOUT
    with step("images of a Talos cluster"):
        shutil.rmtree(LAYOUT, ignore_errors=True)
        layout = _Layout(LAYOUT)
        entrypoint = {"Entrypoint": [talos_node.ENTRYPOINT]}
        for name, node in nodes.items():
            layout.add(name, entrypoint, [node.read_bytes()])
        base = _base()
        for image in images():
            binary = (PROGRAMS / image.program.name).read_bytes()
            layers = [*([base] if image.needs_base else []), _one_file(image.entrypoint, binary)]
            layout.add(image.name, image.settings, layers)
        layout.close()
    return LAYOUT


@dataclass(frozen=True, slots=True)
class _Layout:
    """An OCI image layout that is being written."""

    folder: Path
    _entries: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, settings: Mapping[str, Any], layers: Sequence[bytes]) -> None:
        """Add an image: its layers for this platform, and a placeholder for another one."""
        here = ARCHITECTURES[platform.machine()]
        (elsewhere,) = set(ARCHITECTURES.values()) - {here}
        manifests = [
            self._image(here, settings, layers),
            self._image(elsewhere, settings, [_one_file("/placeholder", name.encode())]),
        ]
        index = self._json("index", manifests=manifests)
        self._entries.append({**index, "annotations": {REF_NAME: name}})

    def close(self) -> None:
        """Write the files that make it a layout."""
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        content = {"schemaVersion": 2, "manifests": self._entries}
        (self.folder / "index.json").write_text(json.dumps(content))

    def _image(
        self, architecture: str, settings: Mapping[str, Any], layers: Sequence[bytes]
    ) -> dict[str, Any]:
        runs_on = {"os": "linux", "architecture": architecture}
        diffs = {"type": "layers", "diff_ids": [_digest(one) for one in layers]}
        config = json.dumps({**runs_on, "config": settings, "rootfs": diffs}).encode()
        packed = (gzip.compress(one, 1, mtime=0) for one in layers)
        manifest = self._json(
            "manifest",
            config=self._blob(f"{OCI}.config.v1+json", config),
            layers=[self._blob(f"{OCI}.layer.v1.tar+gzip", one) for one in packed],
        )
        return {**manifest, "platform": runs_on}

    def _json(self, kind: str, **fields: Any) -> dict[str, Any]:
        media_type = f"{OCI}.{kind}.v1+json"
        content = {"schemaVersion": 2, "mediaType": media_type, **fields}
        return self._blob(media_type, json.dumps(content).encode())

    def _blob(self, media_type: str, content: bytes) -> dict[str, Any]:
        digest = _digest(content)
        path = self.folder / "blobs" / digest.replace(":", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _one_file(path: str, content: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        layer.add_file(tar, path.removeprefix("/"), content, 0o755)
    return archive.getvalue()


def _base() -> bytes:
    """Return the layer below programs that run others."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in BASE_FOLDERS:
            layer.add_folder(tar, folder, mode=0o1777 if folder == "tmp" else 0o755)
        for name, target in BASE_LINKS.items():
            layer.add_link(tar, name, target)
        busybox = debian.busybox()
        layer.add_file(tar, "usr/bin/busybox", busybox.read_bytes(), 0o755)
        for applet in APPLETS:
            layer.add_link(tar, f"usr/bin/{applet}", "busybox")
        layer.add_file(tar, "etc/passwd", b"root:x:0:0::/:/bin/sh\n", 0o644)
        for name, path in talos_node.nft().items():
            layer.add_file(tar, name, path.read_bytes(), 0o755)
    return archive.getvalue()
