"""A cluster of real Talos nodes that cannot be created, or whose creation is interrupted.

Each ends soon and clearly, and leaves nothing but the log of the cluster.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import struct
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pulumi.automation import CommandError

from tests.integration.support import host, private_engine, talos_node
from tests.integration.support.creation import Creation, volumes_of
from tests.integration.support.faulty_runtime import (
    NO_CONTROL_GROUPS,
    NO_SYS_ADMIN,
    FaultyRuntime,
)
from tests.integration.support.polling import PATIENCE, eventually
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.stack import stack, upstreams
from toolchain import layer

NAME = "faulty"
FOREIGN_IMAGE = "ghcr.io/siderolabs/talos:v1.13.99"
INIT = "sbin/init"
# The time limit of a cluster is longer than that of a test.
CLUSTER: dict[str, Any] = {
    "talosctl": talos_node.TALOSCTL,
    "image": talos_node.IMAGE,
    "timeout": "2h",
    "cidr": "10.84.0.0/24",
    "workers": 0,
}
# A line of talosctl in each phase that is reached without Kubernetes.
PHASES = {
    "network": "creating network",
    "nodes": "creating controlplane nodes",
    "etcd": "waiting for etcd",
}
ENDED_WITHIN_S = 60
MACHINES = {"amd64": 62, "arm64": 183}


@dataclass(frozen=True, slots=True)
class Site:
    """A private engine, and a stack with one cache that is up on it.

    Attributes:
        engine: the engine.
        runtime: its runtime, which injects faults.
        creation: the cluster of the stack.
    """

    engine: PrivateEngine
    runtime: FaultyRuntime
    creation: Creation

    def declare(self, **changed: Any) -> None:
        """Write the settings of the cluster into the stack file."""
        self.creation.caches.configure({NAME: {**CLUSTER, **changed}}, "clusters")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if reason := private_engine.why_impossible():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("caches")
    runtime = FaultyRuntime(tmp_path_factory.mktemp("runtime"))
    with (
        talos_node.sysctls_kept(),
        private_engine.running(tmp_path_factory.mktemp("engine"), runtime.options()) as engine,
        engine.client() as client,
    ):
        _import_images(engine, folder)
        # The engine has the images of the nodes, and nothing is pulled.
        gateway = host.bridge_gateway(client)
        caches = {"mirrorHost": gateway, "upstreams": upstreams(f"http://{gateway}:1", "docker.io")}
        with stack(folder, client, caches, engine_host=engine.host, enter=engine.enter) as made:
            made.up()
            yield Site(engine, runtime, Creation(made, client, NAME, volumes_of(client)))
            shutil.rmtree(made.clusters_folder)


def _import_images(engine: PrivateEngine, folder: Path) -> None:
    talos_node.load_image(engine)
    archive = folder / "foreign.tar"
    _write_foreign_image(archive)
    engine.load(archive)


def _write_foreign_image(archive: Path) -> None:
    """Write an archive for `docker load` with a node image for another architecture."""
    other = host.other_architecture()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        layer.add_folder(tar, "sbin")
        layer.add_file(tar, INIT, _program(MACHINES[other]), 0o755)
    config = {
        "architecture": other,
        "os": "linux",
        "config": {"Entrypoint": [f"/{INIT}"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(content.getvalue()).hexdigest()}"],
        },
    }
    manifest = [{"Config": "config.json", "RepoTags": [FOREIGN_IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        layer.add_file(tar, "layer.tar", content.getvalue(), 0o644)
        layer.add_file(tar, "config.json", json.dumps(config).encode(), 0o644)
        layer.add_file(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)


def _program(machine: int) -> bytes:
    """An ELF program with one empty segment, for a machine of the ELF specification."""
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120, 120, 4096)


# Faults of the machine and of the settings


@pytest.mark.parametrize(
    ("fault", "changed", "cause"),
    [
        (NO_SYS_ADMIN, {}, "CAP_SYS_ADMIN"),
        (NO_CONTROL_GROUPS, {}, "control groups are not delegated"),
        ("", {"extraArguments": ["--memory-controlplanes=64MiB"]}, "no memory was left of its 64"),
        ("", {"image": FOREIGN_IMAGE}, f"another architecture ({host.other_architecture()})"),
    ],
    ids=["no CAP_SYS_ADMIN", "no control groups", "too little memory", "another architecture"],
)
def test_a_node_that_cannot_run_is_named_with_the_likely_cause(
    site: Site, fault: str, changed: dict[str, Any], cause: str
) -> None:
    site.declare(**changed)
    site.runtime.inject(fault)
    try:
        with pytest.raises(CommandError) as failure:
            site.creation.caches.up()
    finally:
        site.runtime.inject("")

    said = str(failure.value)
    assert f"the node {NAME}-controlplane-1 ended with exit code" in said
    assert cause in said
    assert str(site.creation.log) in said
    assert "Traceback" not in said
    assert site.creation.left == []


# Ctrl-C


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_undoes_the_creation_in_every_phase(site: Site, phase: str, tmp_path: Path) -> None:
    output = tmp_path / "up.log"
    site.declare()
    with site.creation.up_until(PHASES[phase], output) as up:
        os.killpg(up.pid, signal.SIGINT)
        assert up.wait(PATIENCE * ENDED_WITHIN_S) != 0

        assert site.creation.left == []
    said = output.read_text()
    assert f"the creation of the cluster {NAME} was interrupted" in said
    assert "everything but its log was removed again" in said


@pytest.mark.parametrize(
    ("phase", "signals"),
    [*((phase, (signal.SIGINT, signal.SIGINT)) for phase in PHASES), ("nodes", (signal.SIGKILL,))],
    ids=[*(f"twice in {phase}" for phase in PHASES), "killed in nodes"],
)
def test_the_creation_is_undone_after_a_second_ctrl_c_or_a_killed_pulumi(
    site: Site, phase: str, signals: Sequence[signal.Signals], tmp_path: Path
) -> None:
    site.declare()
    with site.creation.up_until(PHASES[phase], tmp_path / "up.log") as up:
        for number in signals:
            os.killpg(up.pid, number)
        assert up.wait(PATIENCE * ENDED_WITHIN_S) != 0

        eventually(
            lambda: site.creation.left == [], within_s=ENDED_WITHIN_S, what="nothing is left"
        )
