"""Clusters of real Talos nodes, on machines that can run them."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient
from docker.errors import DockerException

from tests.integration.support import nodes
from tests.integration.support.stack import CacheStack, stack

TALOSCTL = "talosctl-1.13"
NODE_IMAGE = "ghcr.io/siderolabs/talos:v1.13.0"
REGISTRIES = ("registry.k8s.io", "ghcr.io")
UP_WITHIN_S = 15 * 60


@pytest.fixture
def real_stack(tmp_path: Path, engine: DockerClient) -> Iterator[CacheStack]:
    ports = {"docker.io": 5490, "registry.k8s.io": 5491, "ghcr.io": 5492}
    upstreams = {registry: {"port": port} for registry, port in ports.items()}
    caches = {"storage": {"onDestroy": "delete"}, "upstreams": upstreams}
    with stack(tmp_path, engine, caches, within_s=UP_WITHIN_S) as made:
        yield made


def _without_image() -> str:
    """Why nodes cannot be containers here; empty if they can."""
    try:
        engine = DockerClient.from_env()
        try:
            engine.images.get(NODE_IMAGE)
        finally:
            engine.close()
    except DockerException:
        return f"needs {NODE_IMAGE} on the engine (docker pull)"
    return _without_registries()


def _without_kvm() -> str:
    """Why nodes cannot be virtual machines here; empty if they can."""
    if not Path("/dev/kvm").exists() or os.geteuid() != 0:
        return "needs /dev/kvm and root"
    return _without_registries()


def _without_registries() -> str:
    try:
        for registry in REGISTRIES:
            socket.create_connection((registry, 443), timeout=2).close()
    except OSError:
        return f"needs access to {', '.join(REGISTRIES)}"
    return ""


def _check(made: CacheStack) -> None:
    cluster = made.outputs()["clusters"]["real"]
    assert "server:" in Path(cluster["kubeconfig"]).read_text()
    assert {node["status"] for node in cluster["nodes"]} == {"running"}
    assert set(made.up()) == {"same"}
    made.destroy()


@pytest.mark.timeout(UP_WITHIN_S)
@pytest.mark.needs_talos_image
@pytest.mark.skipif(bool(_without_image()), reason=_without_image())
def test_a_cluster_of_containers_becomes_ready(
    real_stack: CacheStack, engine: DockerClient
) -> None:
    real_stack.configure({"real": {"talosctl": TALOSCTL, "cidr": "10.79.0.0/24"}}, "clusters")
    real_stack.up()
    _check(real_stack)
    assert nodes.left_of(engine, "real") == []


@pytest.mark.timeout(UP_WITHIN_S)
@pytest.mark.needs_kvm
@pytest.mark.skipif(bool(_without_kvm()), reason=_without_kvm())
def test_a_cluster_of_virtual_machines_becomes_ready(real_stack: CacheStack) -> None:
    cluster = {"talosctl": TALOSCTL, "provisioner": "qemu", "cidr": "10.80.0.0/24"}
    real_stack.configure({"real": cluster}, "clusters")
    real_stack.up()
    _check(real_stack)
