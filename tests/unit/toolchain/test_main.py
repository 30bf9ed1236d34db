"""The command line prepares the machine, and runs a command in the prepared environment."""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.unit.toolchain.fakes import Processes
from toolchain import __main__ as command_line
from toolchain import (
    engine,
    images,
    pulumi,
    release,
    stack,
    talosctl,
    test_tools,
    virtualenv,
)
from toolchain.paths import ROOT
from toolchain.report import SetupError

HOST = "unix:///var/run/docker.sock"


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps on a machine on which nothing has to be installed."""
    steps: list[str] = []
    monkeypatch.setattr(virtualenv, "ensure", steps.append)
    monkeypatch.setattr(engine, "ensure", lambda: HOST)
    monkeypatch.setattr(engine, "refuse_unsupported", lambda _: None)
    monkeypatch.setattr(pulumi, "ensure", lambda: steps.append("pulumi"))
    monkeypatch.setattr(pulumi, "environment", lambda host: {"DOCKER_HOST": host})
    monkeypatch.setattr(
        images, "ensure", lambda _, files: steps.extend(["images", *(one.name for one in files)])
    )
    monkeypatch.setattr(images, "ensure_each", lambda _: steps.append("all images"))
    monkeypatch.setattr(talosctl, "ensure", lambda _: None)
    monkeypatch.setattr(test_tools, "ensure", lambda: steps.append("test tools"))
    return steps


@pytest.mark.parametrize("command", ["up", "preview", "output", "down"])
def test_command_on_a_stack_prepares_what_the_stack_needs(
    done: list[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    called = []

    def on_stack(*given: object) -> int:
        called.append(given)
        return 3

    monkeypatch.setattr(stack, command, on_stack)

    assert command_line.main([command, "guide", "--", "--refresh", "--", "-v"]) == 3
    assert called == [("guide", {"DOCKER_HOST": HOST}, ["--refresh", "--", "-v"])]
    assert done == ["requirements.txt", "pulumi", "images", "Pulumi.guide.yaml"]


@pytest.mark.parametrize(
    ("arguments", "line", "more"),
    [
        (["run", "--", "pulumi", "stack", "ls"], "pulumi stack ls", []),
        (["run", "--all-images", "--", "x"], "x", ["all images"]),
        (["run", "--test-tools", "--", "x"], "x", ["test tools"]),
        (
            ["test", "--", "-k", "settings"],
            " -k settings",
            ["Pulumi.guide.yaml", "Pulumi.talos.yaml", "test tools"],
        ),
    ],
)
def test_command_runs_in_the_prepared_environment(
    done: list[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    line: str,
    more: list[str],
) -> None:
    processes = Processes(code=4)
    monkeypatch.setattr("subprocess.run", processes)

    assert command_line.main(arguments) == 4
    assert processes.lines[0].endswith(line)
    assert processes.environments == [{"DOCKER_HOST": HOST}]
    assert done == ["requirements-dev.txt", "pulumi", "images", *more]


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ([], ["--base", "main"]),
        (["BASE=release", "HEAD=FETCH_HEAD"], ["--base", "release", "--head", "FETCH_HEAD"]),
        # Someone else may have named the branch: the shell must not interpret it.
        (["HEAD=`id`';id;\""], ["--base", "main", "--head", "`id`';id;\""]),
    ],
)
def test_make_passes_branches_to_the_preview_as_single_words(
    tmp_path: Path, variables: list[str], options: list[str]
) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)

    printed = subprocess.run(
        ["make", "pr-preview", *variables],
        cwd=ROOT,
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )

    _, _, *run = printed.stdout.splitlines()
    assert run == [
        *["run", "--all-images", "--", "python", "-m", "talos_registry_cache.review"],
        *options,
    ]


@pytest.mark.parametrize(
    ("findings", "code", "printed"),
    [
        (["not committed: x", "no section"], 1, "error: not committed: x\nerror: no section\n"),
        ([], 0, f"git tag v{release.version(ROOT)}\n"),
    ],
)
def test_release_check_prints_the_obstacles_or_the_tag(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    findings: list[str],
    code: int,
    printed: str,
) -> None:
    monkeypatch.setattr(release, "findings", lambda _: findings)

    assert command_line.main(["release-check"]) == code
    assert capsys.readouterr().err.endswith(printed)


def test_clean_removes_only_build_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("venv", "state"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(command_line, "BUILD_OUTPUT", (tmp_path / "venv", tmp_path / "missing"))

    assert command_line.main(["clean"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(
    ("name", "problem", "ends"),
    [
        ("dev", SetupError("no engine"), (1, "error: no engine\n")),
        ("dev", KeyboardInterrupt(), (130, "")),
        ("none", SetupError("never"), (1, "error: no stack file Pulumi.none.yaml; stacks: ")),
    ],
)
@pytest.mark.usefixtures("done")
def test_exit_code_and_message_if_setting_up_fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    problem: BaseException,
    ends: tuple[int, str],
) -> None:
    code, printed = ends
    monkeypatch.setattr(engine, "ensure", Mock(side_effect=problem))

    assert command_line.main(["up", name]) == code
    assert capsys.readouterr().err.startswith(printed)


def test_help_works_without_any_package() -> None:
    # Without the environment's packages, as on a new machine.
    shown = subprocess.run(
        [sys.executable, "-S", "-m", "toolchain", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "\n    up " in shown.stdout
