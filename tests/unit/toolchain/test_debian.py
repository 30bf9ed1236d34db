"""Debian packages are unpacked into the checkout, once."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.toolchain.fakes import Commands, programs
from toolchain import debian
from toolchain.report import SetupError

TO_INSTALL = "Inst libtool [0.9] (1.0 Debian [amd64])\nInst tool (1:1.0)\nConf libtool (1.0)\n"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    """The commands of a Debian machine that can download the package `tool`."""
    noted = Commands()

    def run(command: Any, cwd: Path | None = None) -> str:
        printed = noted(command)
        if "download" in command:
            assert cwd is not None
            for package in command[command.index("--quiet=2") + 1 :]:
                (cwd / f"{package}_1.0_amd64.deb").touch()
        if "--extract" in command:
            (command[-1] / f"{command[-2].name.partition('_')[0]}-program").touch()
        return printed

    monkeypatch.setattr(debian, "CACHE", tmp_path)
    monkeypatch.setattr(debian, "run", run)
    monkeypatch.setattr("shutil.which", programs("apt-get", "dpkg-deb"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return noted


def test_package_is_unpacked_once_even_after_a_failure(commands: Commands) -> None:
    commands.failing = "--extract"
    with pytest.raises(SetupError):
        debian.unpacked("tool")
    commands.failing = ""

    first, second = debian.unpacked("tool"), debian.unpacked("tool")

    assert first == second
    assert [file.name for file in first.iterdir()] == ["tool-program"]
    assert len(commands.lines) == 4


def test_missing_program_is_named(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", programs("apt-get"))

    with pytest.raises(SetupError, match="tool needs dpkg-deb"):
        debian.unpacked("tool")

    assert commands.lines == []


def test_a_package_of_another_suite_comes_from_the_machine_s_archive(
    commands: Commands, tmp_path: Path
) -> None:
    debian._update_suite.cache_clear()
    commands.answers = {"indextargets": "http://archive/debian\nhttp://archive/debian\n"}

    debian.unpacked("tool", suite="testing")

    (sources,) = tmp_path.rglob("sources.list")
    assert sources.read_text() == "deb http://archive/debian testing main\n"
    update, download = (one for one in commands.lines if f"SourceList={sources}" in one)
    assert update.endswith("update --quiet=2")
    assert download.endswith("download --quiet=2 tool")


def test_missing_packages_are_those_that_would_be_installed(commands: Commands) -> None:
    commands.answers = {"--simulate": TO_INSTALL}

    assert debian.missing("tool", "present") == ["libtool", "tool"]


def test_package_is_unpacked_with_all_it_depends_on(commands: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    commands.answers = {"Dir::State::status=/dev/null tool": TO_INSTALL}

    assert debian.unpack_with_dependencies("tool", folder) == "1:1.0"
    assert {file.name for file in folder.iterdir()} == {"libtool-program", "tool-program"}


@pytest.mark.parametrize("folder", ["bin", "usr/bin"])
def test_busybox_is_found_where_the_distribution_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    program = tmp_path / folder / "busybox"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr(debian, "unpacked", lambda _: tmp_path)

    assert debian.busybox() == program
