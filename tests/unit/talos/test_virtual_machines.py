import os
from pathlib import Path

import pytest

from talos_registry_cache.talos import virtual_machines
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.errors import TalosError
from talos_registry_cache.talos.nodes import Found

# As talosctl 0.6 to 0.8 wrote it.
OLD_STATE = """\
provisionername: qemu
clusterinfo:
  clustername: demo
  network: {name: demo, cidr: {ip: 10.5.0.0}, gatewayaddr: 10.5.0.1, mtu: 1500}
  nodes:
    - {name: demo-master-1, type: 1, publicip: 10.5.0.2, privateip: 10.5.0.2}
    - {name: demo-worker-1, type: 3, privateip: 10.5.0.3}
"""


@pytest.fixture
def files(tmp_path: Path) -> ClusterFiles:
    files = ClusterFiles(tmp_path, "demo")
    (files.state / "demo").mkdir(parents=True)
    return files


def write_state(files: ClusterFiles, text: str) -> None:
    (files.state / "demo" / "state.yaml").write_text(text)


def test_the_bridge_is_named_after_the_cluster() -> None:
    """The expected name is `echo -n talos-default | sha256sum`, its first eight digits."""
    assert virtual_machines.bridge("talos-default") == "talos3d3a9d82"


def test_state_files_of_old_versions_are_read(files: ClusterFiles) -> None:
    write_state(files, OLD_STATE)
    (files.state / "demo" / "demo-master-1.pid").write_text(str(os.getpid()))

    found = virtual_machines.find(files)
    assert found is not None
    assert [(n.name, n.role, n.address, n.status) for n in found.nodes] == [
        ("demo-master-1", "controlplane", "10.5.0.2", "running"),
        ("demo-worker-1", "worker", "10.5.0.3", "stopped"),
    ]


def test_a_state_folder_without_a_state_file_is_a_cluster_without_nodes(
    files: ClusterFiles,
) -> None:
    assert virtual_machines.find(files) == Found(nodes=[])


def test_without_a_state_folder_there_is_no_cluster(tmp_path: Path) -> None:
    assert virtual_machines.find(ClusterFiles(tmp_path, "demo")) is None


@pytest.mark.parametrize("text", ["", "a: b: c", "clusterinfo: {}", "clusterinfo: {network: 1}"])
def test_another_state_file_is_an_error(files: ClusterFiles, text: str) -> None:
    write_state(files, text)
    with pytest.raises(TalosError, match=r"state\.yaml"):
        virtual_machines.find(files)


def test_a_command_that_fails_as_root_is_an_error_with_the_line_to_run(
    files: ClusterFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files.folder / "rm").write_text("#!/bin/sh\necho busy >&2; exit 1\n")
    (files.folder / "rm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{files.folder}:{os.environ['PATH']}")
    with pytest.raises(
        TalosError, match=r"`rm -rf -- .*/state/demo` failed; run it yourself: busy"
    ):
        virtual_machines.remove_remains(files)
