import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.toolchain.fakes import Processes
from toolchain import __main__ as command_line
from toolchain import (
    engine,
    pulumi,
    registry_image,
    release,
    stack,
    talosctl,
    test_tools,
    virtualenv,
)
from toolchain.paths import ROOT
from toolchain.report import SetupError

HOST = "unix:///var/run/docker.sock"
ENV = {"PATH": "/here", "DOCKER_HOST": HOST}


class Machine:
    """A machine that becomes ready at once; what was made sure of is noted in its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.processes = Processes()
        self.stack_files: list[str] = []
        monkeypatch.setattr(virtualenv, "ensure", self.done.append)
        monkeypatch.setattr(engine, "ensure", self.engine)
        monkeypatch.setattr(pulumi, "ensure", lambda: self.note("pulumi"))
        monkeypatch.setattr(pulumi, "environment", lambda host: ENV | {"DOCKER_HOST": host})
        monkeypatch.setattr(registry_image, "ensure", self.image)
        monkeypatch.setattr(registry_image, "ensure_all", self.all_images)
        monkeypatch.setattr(talosctl, "ensure", lambda _: None)
        monkeypatch.setattr(test_tools, "ensure", lambda: self.note("test tools"))
        monkeypatch.setattr("subprocess.run", self.processes)

    def note(self, what: str) -> None:
        self.done.append(what)

    def engine(self) -> str:
        self.note("engine")
        return HOST

    def image(self, host: str, stack_file: str) -> None:
        assert host == HOST
        self.done.append("image")
        self.stack_files.append(stack_file)

    def all_images(self, host: str) -> None:
        assert host == HOST
        assert not self.processes.lines, "they are there before the command runs"
        self.done.append("all images")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


READY = ["engine", "pulumi", "image"]


@pytest.mark.parametrize("command", ["up", "preview", "output", "down"])
def test_a_command_on_a_stack_makes_the_machine_ready_and_runs_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    called = []

    def on_stack(name: str, env: dict[str, str], arguments: list[str]) -> int:
        called.append((name, env, arguments))
        return 3

    monkeypatch.setattr(stack, command, on_stack)

    assert command_line.main([command, "guide", "--", "--refresh", "--", "-v"]) == 3
    assert called == [("guide", ENV, ["--refresh", "--", "-v"])]
    assert machine.done == ["requirements.txt", *READY]
    assert machine.stack_files == [(ROOT / "Pulumi.guide.yaml").read_text()]


def test_an_unknown_stack_is_refused_before_anything_is_done(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["up", "no-such-stack"]) == 1
    assert "error: there is no stack file Pulumi.no-such-stack.yaml" in capsys.readouterr().err
    assert machine.done == []


def test_any_command_can_be_run_where_all_is_at_hand(machine: Machine) -> None:
    machine.processes.code = 4

    assert command_line.main(["run", "--", "pulumi", "stack", "ls"]) == 4
    assert machine.processes.lines == ["pulumi stack ls"]
    assert machine.processes.environments == [ENV]
    assert machine.done == ["requirements-dev.txt", *READY]


def test_a_command_on_all_stacks_has_the_images_of_all(machine: Machine) -> None:
    assert (
        command_line.main(
            ["run", "--all-images", "--", "python", "-m", "talos_registry_cache.review"]
        )
        == 0
    )
    assert machine.done == ["requirements-dev.txt", *READY, "all images"]
    assert machine.processes.lines == ["python -m talos_registry_cache.review"]


def test_a_command_has_the_tools_of_the_tests_if_it_wants_them(machine: Machine) -> None:
    assert command_line.main(["run", "--test-tools", "--", "python", "-m", "benchmarks.team"]) == 0
    assert machine.done == ["requirements-dev.txt", *READY, "test tools"]


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ([], ["--base", "main"]),
        (["BASE=release", "HEAD=FETCH_HEAD"], ["--base", "release", "--head", "FETCH_HEAD"]),
        # A branch that somebody else has named is a word, whatever it has in it.
        (["HEAD=`id`';id;\""], ["--base", "main", "--head", "`id`';id;\""]),
    ],
)
def test_the_preview_of_a_pull_request_has_the_images_of_all_stacks(
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

    run = [
        "-m",
        "toolchain",
        "run",
        "--all-images",
        "--",
        "python",
        "-m",
        "talos_registry_cache.review",
    ]
    assert printed.stdout.splitlines() == [*run, *options]


def test_tests_have_what_the_guide_and_the_clusters_need(machine: Machine) -> None:
    machine.processes.code = 1

    assert command_line.main(["test", "--", "-k", "settings"]) == 1
    workers = max(3, os.cpu_count() or 1)
    assert machine.processes.lines == [f"python -m pytest --numprocesses={workers} -k settings"]
    assert machine.done == ["requirements-dev.txt", *READY, "test tools"]
    guide, talos = ((ROOT / f"Pulumi.{name}.yaml").read_text() for name in ("guide", "talos"))
    assert machine.stack_files == [guide + talos]


def test_packages_alone_need_no_engine(machine: Machine) -> None:
    assert command_line.main(["packages"]) == 0
    assert machine.done == ["requirements-dev.txt"]


def test_a_release_is_refused_with_all_that_stands_against_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(release, "findings", lambda _: iter(["not committed: x", "no section"]))

    assert command_line.main(["release-check"]) == 1
    assert capsys.readouterr().err == "error: not committed: x\nerror: no section\n"
    assert machine.done == []


@pytest.mark.usefixtures("machine")
def test_a_release_that_can_be_made_is_told_with_its_tag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(release, "findings", lambda _: iter([]))

    assert command_line.main(["release-check"]) == 0
    assert f"git tag v{release.version(ROOT)}\n" in capsys.readouterr().err


def test_clean_removes_what_was_made_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("venv", "state"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(command_line, "BUILD_OUTPUT", (tmp_path / "venv", tmp_path / "never-made"))

    assert command_line.main(["clean"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert capsys.readouterr().err == f"remove {tmp_path / 'venv'}\n"


def test_the_state_is_not_among_what_clean_removes() -> None:
    assert [str(path.relative_to(ROOT)) for path in command_line.BUILD_OUTPUT] == [
        ".venv",
        ".toolchain",
        "build",
    ]


@pytest.mark.usefixtures("machine")
def test_a_machine_that_cannot_be_made_ready_ends_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise SetupError("no container engine")

    monkeypatch.setattr(engine, "ensure", fail)

    assert command_line.main(["up", "dev"]) == 1
    assert capsys.readouterr().err == "error: no container engine\n"


@pytest.mark.usefixtures("machine")
def test_an_interrupted_command_ends_as_the_shell_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pulumi, "ensure", interrupt)

    assert command_line.main(["up", "dev"]) == 130


@pytest.mark.parametrize("arguments", [[], ["fly"], ["up"], ["packages", "extra"], ["--", "up"]])
def test_a_wrong_command_line_is_refused(
    machine: Machine, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        command_line.main(arguments)

    assert refused.value.code == 2
    assert "usage: python3 -m toolchain" in capsys.readouterr().err
    assert machine.done == []


@pytest.mark.parametrize(
    ("arguments", "ours", "rest"),
    [
        (["up", "dev"], ["up", "dev"], []),
        (["up", "dev", "--"], ["up", "dev"], []),
        (["up", "dev", "--", "--refresh"], ["up", "dev"], ["--refresh"]),
        (["run", "--", "a", "--", "b"], ["run"], ["a", "--", "b"]),
        ([], [], []),
    ],
)
def test_the_first_two_dashes_part_our_arguments_from_the_command_s(
    arguments: list[str], ours: list[str], rest: list[str]
) -> None:
    assert command_line._split(arguments) == (ours, rest)


def test_help_lists_the_commands_of_a_bare_python() -> None:
    # Isolated from the environment's packages, as on a new machine.
    shown = subprocess.run(
        [sys.executable, "-S", "-m", "toolchain", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    commands = ("up", "preview", "output", "down", "run", "test", "packages", "release-check")
    for command in (*commands, "clean"):
        assert f"\n    {command} " in shown.stdout
