from pathlib import Path

import pytest

from tests.unit.toolchain.fakes import programs
from toolchain import golang, talosctl
from toolchain.golang import Program

CACHES = "config:\n  talos-registry-cache:caches: {}\n"
CLUSTERS = f"{CACHES}  talos-registry-cache:clusters:\n    demo: {{}}\n"


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def build(program: Program) -> None:
        (tmp_path / program.name).touch()

    monkeypatch.setattr(talosctl, "BIN", tmp_path)
    monkeypatch.setattr(golang, "ensure", build)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_is_built_for_a_stack_with_clusters(
    monkeypatch: pytest.MonkeyPatch, bin_folder: Path
) -> None:
    monkeypatch.setattr("shutil.which", programs())

    talosctl.ensure(CLUSTERS)
    talosctl.ensure(CLUSTERS)

    assert names(bin_folder) == ["talosctl", talosctl.CURRENT.name]
    assert (bin_folder / "talosctl").readlink() == Path(talosctl.CURRENT.name)


def test_none_is_built_for_a_stack_of_caches_alone(
    monkeypatch: pytest.MonkeyPatch, bin_folder: Path
) -> None:
    monkeypatch.setattr("shutil.which", programs())

    talosctl.ensure(CACHES)

    assert names(bin_folder) == []


def test_one_that_was_built_here_stays_where_it_is_on_path(
    monkeypatch: pytest.MonkeyPatch, bin_folder: Path
) -> None:
    monkeypatch.setattr("shutil.which", programs())
    talosctl.ensure(CLUSTERS)
    monkeypatch.setattr("shutil.which", lambda _: str(bin_folder / "talosctl"))

    talosctl.ensure(CLUSTERS)

    assert "talosctl" in names(bin_folder)


def test_the_machine_s_own_goes_before_one_that_was_built_earlier(
    monkeypatch: pytest.MonkeyPatch, bin_folder: Path
) -> None:
    monkeypatch.setattr("shutil.which", programs())
    talosctl.ensure(CLUSTERS)
    monkeypatch.setattr("shutil.which", programs("talosctl"))

    talosctl.ensure(CLUSTERS)

    assert names(bin_folder) == [talosctl.CURRENT.name]
