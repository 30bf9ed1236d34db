"""talosctl is built only for a stack with clusters, on a machine without one."""

from pathlib import Path

import pytest

from tests.unit.toolchain.fakes import programs
from toolchain import golang, talosctl
from toolchain.golang import Program

CACHES = "config:\n  talos-registry-cache:caches: {}\n"
CLUSTERS = f"{CACHES}  talos-registry-cache:clusters:\n    demo: {{}}\n"
BUILT = talosctl.CURRENT.name


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def build(program: Program) -> None:
        (tmp_path / program.name).touch()

    monkeypatch.setattr(talosctl, "BIN", tmp_path)
    monkeypatch.setattr(golang, "ensure", build)
    return tmp_path


def test_talosctl_is_built_for_clusters_until_the_machine_has_one(
    monkeypatch: pytest.MonkeyPatch, bin_folder: Path
) -> None:
    talosctl.ensure(CACHES)
    assert list(bin_folder.iterdir()) == []

    for found in (None, str(bin_folder / "talosctl")):
        monkeypatch.setattr("shutil.which", lambda _, found=found: found)
        talosctl.ensure(CLUSTERS)
        assert (bin_folder / "talosctl").readlink() == Path(BUILT)

    monkeypatch.setattr("shutil.which", programs("talosctl"))
    talosctl.ensure(CLUSTERS)
    assert [path.name for path in bin_folder.iterdir()] == [BUILT]
