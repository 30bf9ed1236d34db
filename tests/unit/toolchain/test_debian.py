from pathlib import Path
from typing import Any

import pytest

from tests.unit.toolchain.fakes import Commands, programs
from toolchain import debian
from toolchain.report import SetupError


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Commands of a Debian machine, to which a package `tool` can be downloaded."""
    noted = Commands()

    def run(command: Any, cwd: Path | None = None) -> str:
        said = noted(command)
        if "download" in command:
            assert cwd is not None
            (cwd / "tool_1.0_amd64.deb").touch()
        if "--extract" in command:
            (command[-1] / "program").touch()
        return said

    monkeypatch.setattr(debian, "run", run)
    monkeypatch.setattr("shutil.which", programs("apt-get", "dpkg-deb"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return noted


def test_the_folder_exists_only_after_success(commands: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "tool"
    commands.failing = "--extract"
    with pytest.raises(SetupError):
        debian.unpack("tool", folder)
    assert not folder.exists()
    commands.failing = ""

    debian.unpack("tool", folder)

    assert [file.name for file in folder.iterdir()] == ["program"]


def test_missing_tools_are_named(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", programs("apt-get"))

    with pytest.raises(SetupError, match="tool needs dpkg-deb"):
        debian.unpack("tool", tmp_path / "tool")

    assert commands.lines == []
