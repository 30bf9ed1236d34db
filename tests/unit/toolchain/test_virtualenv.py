import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.toolchain.fakes import Commands
from toolchain import virtualenv
from toolchain.report import SetupError
from toolchain.virtualenv import DEVELOPMENT, PROJECT, RUNTIME


class Machine:
    """A checkout with lock files, where packages are installed by noting it down."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands = Commands()
        self.created = 0
        for lock in (RUNTIME, DEVELOPMENT, PROJECT):
            (root / lock).write_text(f"# {lock}\n")

    def create(self, folder: Path, **options: Any) -> None:
        assert options["with_pip"]
        self.created += 1
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").touch()

    @property
    def installed(self) -> list[str]:
        """The lock files from which packages were installed."""
        lines = [line for line in self.commands.lines if "--require-hashes" in line]
        return [line.rpartition("/")[2] for line in lines]

    @property
    def times_the_project_was_installed(self) -> int:
        return sum(f"--editable {self.root}" in line for line in self.commands.lines)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(virtualenv, "ROOT", tmp_path)
    monkeypatch.setattr(virtualenv, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(virtualenv, "virtualenv_bin", lambda: tmp_path / ".venv" / "bin")
    monkeypatch.setattr(virtualenv, "run", made.commands)
    monkeypatch.setattr("venv.create", made.create)
    return made


def test_packages_are_installed_once_with_their_hashes_checked(machine: Machine) -> None:
    virtualenv.ensure(RUNTIME)
    virtualenv.ensure(RUNTIME)

    assert machine.created == 1
    assert machine.installed == [RUNTIME]
    assert "--require-hashes" in machine.commands.lines[0]


def test_the_project_is_installed_in_place_and_again_when_its_metadata_changes(
    machine: Machine,
) -> None:
    virtualenv.ensure(RUNTIME)
    virtualenv.ensure(RUNTIME)
    assert machine.times_the_project_was_installed == 1
    # What is installed without a lock may bring nothing else in.
    assert "--no-deps --no-build-isolation" in machine.commands.lines[-1]

    (machine.root / PROJECT).write_text("# another version\n")
    virtualenv.ensure(RUNTIME)
    assert machine.times_the_project_was_installed == 2
    assert machine.installed == [RUNTIME]


def test_a_changed_lock_is_installed_into_the_same_environment(machine: Machine) -> None:
    virtualenv.ensure(RUNTIME)
    (machine.root / RUNTIME).write_text("# other\n")

    virtualenv.ensure(RUNTIME)

    assert machine.created == 1
    assert machine.installed == [RUNTIME, RUNTIME]


def test_the_development_lock_holds_the_runtime_one(machine: Machine) -> None:
    virtualenv.ensure(DEVELOPMENT)
    virtualenv.ensure(RUNTIME)

    assert machine.installed == [DEVELOPMENT]


def test_the_runtime_lock_does_not_hold_the_development_one(machine: Machine) -> None:
    virtualenv.ensure(RUNTIME)
    virtualenv.ensure(DEVELOPMENT)

    assert machine.installed == [RUNTIME, DEVELOPMENT]


def test_packages_that_failed_are_installed_again(machine: Machine) -> None:
    machine.commands.failing = "--require-hashes"
    with pytest.raises(SetupError):
        virtualenv.ensure(RUNTIME)

    machine.commands.failing = ""
    virtualenv.ensure(RUNTIME)

    assert machine.installed == [RUNTIME, RUNTIME]


@pytest.mark.usefixtures("machine")
def test_another_interpreter_or_place_needs_its_own_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = {virtualenv._wanted(RUNTIME)}
    monkeypatch.setattr(virtualenv, "VENV", tmp_path / "elsewhere")
    wanted.add(virtualenv._wanted(RUNTIME))
    monkeypatch.setattr(sys.implementation, "cache_tag", "cpython-399")
    wanted.add(virtualenv._wanted(RUNTIME))

    assert len(wanted) == 3


def test_an_old_python_is_refused_with_the_version_that_is_needed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 12, "final", 0))

    with pytest.raises(SetupError, match=r"Python 3\.10\.12 is too old: 3\.11 or newer"):
        virtualenv.ensure(RUNTIME)

    assert machine.created == 0


def test_a_machine_without_venv_is_told_the_package_to_install(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no ensurepip")

    monkeypatch.setattr("venv.create", fail)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"

    with pytest.raises(SetupError, match=rf"no ensurepip\n.*apt-get install python{version}-venv"):
        virtualenv.ensure(RUNTIME)

    assert machine.installed == []
