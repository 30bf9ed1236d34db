"""Locked packages and the project are installed when they change, and only then."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.toolchain.fakes import Commands
from toolchain import virtualenv
from toolchain.report import SetupError
from toolchain.virtualenv import DEVELOPMENT, PROJECT, RUNTIME


class Machine:
    """A checkout with lock files, whose pip commands are only noted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands = Commands()
        self.created = 0
        for lock in (RUNTIME, DEVELOPMENT, PROJECT):
            (root / lock).write_text(f"# {lock}\n")

    def create(self, folder: Path, **_: Any) -> None:
        self.created += 1
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").touch()

    @property
    def installed(self) -> list[str]:
        """The lock files whose packages were installed, and "." for the project."""
        return [
            line.rpartition("/")[2] if "--require-hashes" in line else "."
            for line in self.commands.lines
        ]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(virtualenv, "ROOT", tmp_path)
    monkeypatch.setattr(virtualenv, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(virtualenv, "virtualenv_bin", lambda: tmp_path / ".venv" / "bin")
    monkeypatch.setattr(virtualenv, "run", made.commands)
    monkeypatch.setattr("venv.create", made.create)
    return made


@pytest.mark.parametrize(
    ("steps", "installed"),
    [
        ([RUNTIME, RUNTIME], [RUNTIME, "."]),
        # The development lock has all packages of the runtime lock.
        ([DEVELOPMENT, RUNTIME], [DEVELOPMENT, "."]),
        ([RUNTIME, DEVELOPMENT], [RUNTIME, ".", DEVELOPMENT]),
        ([RUNTIME, f"change {RUNTIME}", RUNTIME], [RUNTIME, ".", RUNTIME]),
        ([RUNTIME, f"change {PROJECT}", RUNTIME], [RUNTIME, ".", "."]),
    ],
)
def test_lock_and_project_are_installed_once_and_after_changes(
    machine: Machine, steps: list[str], installed: list[str]
) -> None:
    for step in steps:
        if step.startswith("change "):
            (machine.root / step.removeprefix("change ")).write_text("# other\n")
        else:
            virtualenv.ensure(step)

    assert machine.created == 1
    assert machine.installed == installed


def test_failed_installation_is_repeated(machine: Machine) -> None:
    machine.commands.failing = "--require-hashes"
    with pytest.raises(SetupError):
        virtualenv.ensure(RUNTIME)
    machine.commands.failing = ""

    virtualenv.ensure(RUNTIME)

    assert machine.installed == [RUNTIME, RUNTIME, "."]


@pytest.mark.usefixtures("machine")
def test_another_interpreter_or_folder_needs_its_own_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = {virtualenv._wanted(RUNTIME)}
    monkeypatch.setattr(virtualenv, "VENV", tmp_path / "elsewhere")
    wanted.add(virtualenv._wanted(RUNTIME))
    monkeypatch.setattr(sys.implementation, "cache_tag", "cpython-399")
    wanted.add(virtualenv._wanted(RUNTIME))

    assert len(wanted) == 3
