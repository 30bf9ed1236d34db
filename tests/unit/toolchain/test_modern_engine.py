"""Docker Engine 29 is built unless the machine has it."""

import os
from pathlib import Path

import pytest

from tests.unit.toolchain.fakes import Commands, programs
from toolchain import golang, modern_engine

OLD = "Docker version 20.10.24+dfsg1, build 297e128"
RECENT = "Docker version 29.1.3, build f52814d"


class Machine:
    """A machine whose engine has a version; notes what is built."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        self.built: list[str] = []
        monkeypatch.setattr("shutil.which", programs(*["dockerd"] if version else []))
        monkeypatch.setattr(modern_engine, "run", Commands(answers={"dockerd": version}))
        monkeypatch.setattr(golang, "ensure", lambda program, *_: self.built.append(program.name))


@pytest.mark.parametrize("version", [OLD, ""])
def test_the_engine_is_built_and_found_before_an_older_one(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    machine = Machine(monkeypatch, version)

    modern_engine.ensure()

    assert {"dockerd", "containerd", "runc"} <= set(machine.built)
    first, *_ = modern_engine.search_path().split(os.pathsep)
    assert Path(first) == modern_engine.FOLDER


def test_the_machine_s_own_engine_is_used_if_it_is_recent(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, RECENT)

    modern_engine.ensure()

    assert machine.built == []
    assert modern_engine.search_path() == os.environ["PATH"]
