"""Creating a cluster on a full disk."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from talos_registry_cache.talos import command_line
from talos_registry_cache.talos.cluster import ClusterOperations
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.errors import TalosError
from talos_registry_cache.talos.process import Runner
from talos_registry_cache.talos.versions import Version
from tests.unit.talos.fake_docker import serving
from tests.unit.talos.fake_talosctl import FakeTalosctl

ROOM = "16k"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
def test_a_full_disk_is_an_error_and_nothing_is_left(tmp_path: Path, small_disk: Path) -> None:
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(100_000))
    files = ClusterFiles(small_disk / "stack", "demo")
    with serving(tmp_path) as (engine, client):
        talosctl = FakeTalosctl(tmp_path, "demo", engine.folder).talosctl(Version(1, 13))

        plan = command_line.create(ClusterSpec(name="demo"), talosctl, files)
        cluster = ClusterOperations(files, Provisioner.DOCKER, {}, client, Runner(print))

        with pytest.raises(TalosError, match="No space left on device"):
            cluster.create(plan)

    assert not files.folder.exists()
