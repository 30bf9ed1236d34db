"""`make doctor` reports what `make up` would do, and changes nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from talos_registry_cache.engine.selection import DEFAULT_HOST, Selection
from tests.unit.toolchain.fakes import programs
from toolchain import doctor, engine, golang, images, pulumi, talosctl, virtualenv
from toolchain.doctor import State
from toolchain.paths import ROOT
from toolchain.report import SetupError

NEEDED = ("toolchain", "talos_registry_cache", "Pulumi.yaml", "Pulumi.talos.yaml")
LOCKS = ("requirements.txt", "requirements-dev.txt", "pyproject.toml")
WITH_CLUSTER = "config:\n  clusters:\n    demo: {}\n"


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text(WITH_CLUSTER)
    return file


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Debian machine with only Python, and without access to the internet."""
    for module in (pulumi, talosctl):
        monkeypatch.setattr(module, "BIN", tmp_path / "bin")
    monkeypatch.setattr("shutil.which", programs())
    monkeypatch.setattr(virtualenv, "is_ready", lambda _: False)
    monkeypatch.setattr(virtualenv, "why_not_created", lambda: "")
    monkeypatch.setattr(engine, "select", lambda: Selection(DEFAULT_HOST, "the default"))
    monkeypatch.setattr(engine, "answers", lambda _: False)
    monkeypatch.setattr(engine, "why_not_started", lambda _: "")
    monkeypatch.setattr(doctor, "DOCKER_HUB", "docker.invalid")


@pytest.mark.usefixtures("bare")
def test_make_up_installs_everything_on_a_bare_debian_machine(
    stack_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.report(stack_file) == 0

    printed = capsys.readouterr().out
    for part in (
        "installs requirements.txt into .venv",
        "installs Debian's docker.io and starts it",
        "Pulumi is not installed: builds it in minutes; to install it instead: curl ",
        "talosctl: builds it in minutes",
        "docker.invalid does not answer",
        "Go: installs its Python package",
    ):
        assert f"  make up  {part}" in printed or f": {part}" in printed
    assert printed.endswith("`make up` can start; nothing was changed\n")


@pytest.mark.usefixtures("bare")
def test_everything_is_ready_on_a_machine_where_make_up_has_run(
    monkeypatch: pytest.MonkeyPatch, stack_file: Path
) -> None:
    monkeypatch.setattr("shutil.which", programs("pulumi", "talosctl"))
    monkeypatch.setattr(virtualenv, "is_ready", lambda _: True)
    monkeypatch.setattr(engine, "answers", lambda _: True)
    monkeypatch.setattr(engine, "refuse_unsupported", lambda _: "29.0.0")
    monkeypatch.setattr(images, "missing", lambda *_: [])
    monkeypatch.setattr(pulumi, "why_not_used", lambda: "")
    monkeypatch.setattr(golang, "on_machine", lambda: "/usr/bin/go")

    others = [one for one in doctor.findings(stack_file) if one.state is not State.READY]

    assert ["docker.invalid" in one.text for one in others] == [True]


@pytest.mark.usefixtures("bare")
def test_what_the_user_has_to_do_is_missing(
    monkeypatch: pytest.MonkeyPatch, stack_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: str) -> str:
        raise SetupError("Podman is not supported")

    monkeypatch.setattr(virtualenv, "why_not_created", lambda: "Python lacks ensurepip")
    monkeypatch.setattr(engine, "answers", lambda _: True)
    monkeypatch.setattr(engine, "refuse_unsupported", refuse)

    assert doctor.report(stack_file) == 1

    printed = capsys.readouterr().out
    assert "  missing  Python lacks ensurepip\n  missing  Podman is not supported\n" in printed
    assert printed.endswith("something is missing\n")


def test_the_report_on_this_machine_changes_no_file(tmp_path: Path) -> None:
    for name in (*NEEDED, *LOCKS):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    before = sorted(tmp_path.rglob("*"))

    done = subprocess.run(
        [sys.executable, "-B", "-m", "toolchain", "doctor", "talos"],
        cwd=tmp_path,
        env={**os.environ, "PATH": "/usr/bin:/bin", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "installs requirements.txt into .venv" in done.stdout, done.stderr
    assert sorted(tmp_path.rglob("*")) == before
