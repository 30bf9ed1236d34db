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
    monkeypatch.setattr("shutil.which", programs())
    return tmp_path


@pytest.mark.parametrize(("stack_file", "names"), [(CLUSTERS, ["talosctl", BUILT]), (CACHES, [])])
def test_talosctl_is_built_only_for_clusters(
    bin_folder: Path, stack_file: str, names: list[str]
) -> None:
    talosctl.ensure(stack_file)

    assert sorted(path.name for path in bin_folder.iterdir()) == names


def test_built_talosctl_that_is_found_on_path_is_kept(
    monkeypatch: pytest.MonkeyPatch, bin_folder: Path
) -> None:
    talosctl.ensure(CLUSTERS)
    monkeypatch.setattr("shutil.which", lambda _: str(bin_folder / "talosctl"))

    talosctl.ensure(CLUSTERS)

    assert (bin_folder / "talosctl").readlink() == Path(BUILT)


def test_machines_own_talosctl_replaces_a_built_one(
    monkeypatch: pytest.MonkeyPatch, bin_folder: Path
) -> None:
    talosctl.ensure(CLUSTERS)
    monkeypatch.setattr("shutil.which", programs("talosctl"))

    talosctl.ensure(CLUSTERS)

    assert [path.name for path in bin_folder.iterdir()] == [BUILT]
