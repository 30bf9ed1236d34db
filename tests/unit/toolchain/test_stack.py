import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.toolchain.fakes import Commands, Processes
from toolchain import engine, stack
from toolchain.report import SetupError

SETTINGS = "# The comments stay.\nconfig:\n  talos-registry-cache:caches: {}\n"
SALT = "encryptionsalt: v1:abc=:v1:def:ghi=="
OWN_SALT = "encryptionsalt: v1:mine=:v1:mine:mine=="


class Pulumi(Commands):
    """A Pulumi that makes stacks, and writes the salt of their secrets into the stack file."""

    def __init__(self, root: Path, state: Path) -> None:
        super().__init__()
        self.root = root
        self.state = state

    def __call__(self, command: Sequence[str | Path], **options: Any) -> str:
        answer = super().__call__(command, **options)
        if "init" in command:
            name = str(command[-1])
            file = self.root / f"Pulumi.{name}.yaml"
            if "encryptionsalt" not in file.read_text():
                file.write_text(f"{file.read_text()}{SALT}\n")
            stacks = self.state / ".pulumi" / "stacks" / stack.PROJECT
            stacks.mkdir(parents=True, exist_ok=True)
            (stacks / f"{name}.json").write_text("{}")
        return answer


class Checkout:
    """A checkout with the stack `dev`, and an environment whose state is in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / ".state"
        self.state.mkdir()
        self.file = root / "Pulumi.dev.yaml"
        self.file.write_text(SETTINGS)
        self.env = {"PULUMI_BACKEND_URL": self.state.as_uri(), "DOCKER_HOST": "unix://none"}
        self.pulumi = Pulumi(root, self.state)
        self.processes = Processes()
        self.volumes: list[str] | None = None

    def request(self, host: str, method: str, path: str) -> tuple[int, bytes]:
        assert (host, method) == ("unix://none", "GET")
        assert "talos-registry-cache.stack%3Ddev" in path
        named = None if self.volumes is None else [{"Name": name} for name in self.volumes]
        return 200, json.dumps({"Volumes": named}).encode()

    def prepared(self) -> Path:
        return stack._prepare_local("dev", self.env)

    def lock(self, pid: int, hostname: str | None = None, name: str = "dev") -> Path:
        folder = self.state / ".pulumi" / "locks" / "organization" / stack.PROJECT / name
        folder.mkdir(parents=True, exist_ok=True)
        held = {"pid": pid, "username": "me", "hostname": hostname or socket.gethostname()}
        (folder / "0123.json").write_text(json.dumps(held))
        return folder / "0123.json"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    made = Checkout(tmp_path)
    monkeypatch.setattr(stack, "ROOT", made.root)
    monkeypatch.setattr(stack, "STATE", made.state)
    monkeypatch.setattr(stack, "run", made.pulumi)
    monkeypatch.setattr(engine, "request", made.request)
    monkeypatch.setattr("subprocess.run", made.processes)
    return made


@pytest.fixture
def dead_pid() -> int:
    """The ID of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


# Stack files


def test_a_stack_is_its_file(checkout: Checkout) -> None:
    assert stack.file("dev") == checkout.file


def test_an_unknown_stack_is_an_error_that_lists_the_others(checkout: Checkout) -> None:
    (checkout.root / "Pulumi.guide.yaml").touch()
    (checkout.root / "Pulumi.yaml").touch()

    with pytest.raises(SetupError, match=r"no stack file Pulumi\.de\.yaml; stacks: dev, guide$"):
        stack.file("de")


# The copy that keeps the salt


def test_the_salt_goes_into_a_copy_and_the_tracked_file_stays(checkout: Checkout) -> None:
    copy = checkout.prepared()

    assert checkout.file.read_text() == SETTINGS
    assert copy == checkout.state / "config" / "Pulumi.dev.yaml"
    assert copy.read_text() == f"{SETTINGS}{SALT}\n"


def test_the_stack_is_made_once_and_its_copy_stays_the_same(checkout: Checkout) -> None:
    first = checkout.prepared().read_text()
    second = checkout.prepared().read_text()

    assert first == second
    assert checkout.pulumi.lines == ["pulumi stack init --no-select dev"]


def test_changed_settings_reach_the_copy_and_the_salt_stays(checkout: Checkout) -> None:
    checkout.prepared()
    checkout.file.write_text("config: {}\n")

    assert checkout.prepared().read_text() == f"config: {{}}\n{SALT}\n"


def test_a_stack_file_with_a_salt_of_its_own_is_used_as_it_is(checkout: Checkout) -> None:
    checkout.file.write_text(f"{OWN_SALT}\n{SETTINGS}")

    assert checkout.prepared() == checkout.file
    assert checkout.file.read_text() == f"{OWN_SALT}\n{SETTINGS}"


def test_a_stack_file_that_gets_a_salt_later_is_used_from_then_on(checkout: Checkout) -> None:
    checkout.prepared()
    checkout.file.write_text(f"{SETTINGS}{OWN_SALT}\n")

    assert checkout.prepared() == checkout.file


def test_a_stack_that_was_made_elsewhere_runs_with_its_own_file(checkout: Checkout) -> None:
    stacks = checkout.state / ".pulumi" / "stacks" / stack.PROJECT
    stacks.mkdir(parents=True)
    (stacks / "dev.json").write_text("{}")

    assert checkout.prepared() == checkout.file
    assert checkout.pulumi.lines == []


def test_the_tracked_file_stays_even_if_the_stack_cannot_be_made(checkout: Checkout) -> None:
    def half_way(command: Sequence[str], **_: Any) -> str:
        checkout.file.write_text(f"{SETTINGS}{SALT}\n")
        raise SetupError(f"{command} ended with 255")

    checkout.pulumi.failing = "init"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack, "run", half_way)
        with pytest.raises(SetupError):
            checkout.prepared()

    assert checkout.file.read_text() == SETTINGS


# What a killed run has left


@pytest.mark.parametrize("left", ["", "\n"])
def test_what_was_cut_off_beside_a_state_is_removed(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    checkout.prepared()
    (checkpoint,) = checkout.state.rglob("dev.json")
    beside = checkpoint.with_name("dev.json.attrs")
    beside.write_text(left)

    checkout.prepared()

    assert not beside.exists()
    assert checkpoint.read_text() == "{}"
    assert "killed as it wrote dev.json" in capsys.readouterr().err


def test_what_is_whole_beside_a_state_stays(checkout: Checkout) -> None:
    checkout.prepared()
    (checkpoint,) = checkout.state.rglob("dev.json")
    beside = checkpoint.with_name("dev.json.attrs")
    beside.write_text('{"user.content_type": "text/plain"}')

    checkout.prepared()

    assert beside.exists()


# Locks


def test_the_lock_of_a_killed_run_is_released(
    checkout: Checkout, dead_pid: int, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.prepared()
    checkout.lock(dead_pid)

    checkout.prepared()

    assert checkout.pulumi.lines[1:] == ["pulumi cancel --yes --stack dev"]
    assert f"(process {dead_pid}): its lock is released" in capsys.readouterr().err


def test_the_lock_of_a_running_process_stays(checkout: Checkout) -> None:
    checkout.lock(os.getpid())

    stack._release_stale_lock("dev", checkout.env)

    assert checkout.pulumi.lines == []


def test_the_lock_of_another_user_s_process_stays(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr("os.kill", forbid)
    checkout.lock(1)

    stack._release_stale_lock("dev", checkout.env)

    assert checkout.pulumi.lines == []


def test_the_lock_of_another_machine_stays(checkout: Checkout, dead_pid: int) -> None:
    checkout.lock(dead_pid, hostname="another-machine")

    stack._release_stale_lock("dev", checkout.env)

    assert checkout.pulumi.lines == []


def test_the_lock_of_another_stack_stays(checkout: Checkout, dead_pid: int) -> None:
    checkout.lock(dead_pid, name="guide")

    stack._release_stale_lock("dev", checkout.env)

    assert checkout.pulumi.lines == []


# Commands


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (stack.up, "pulumi up --stack dev --yes --refresh"),
        (stack.preview, "pulumi preview --stack dev --diff --refresh"),
        (stack.down, "pulumi destroy --stack dev --yes --refresh"),
    ],
)
def test_a_command_is_pulumi_s_with_the_copied_settings(
    checkout: Checkout, command: Any, line: str
) -> None:
    checkout.processes.code = 3

    assert command("dev", checkout.env, ["--refresh"]) == 3
    assert checkout.processes.lines == [
        f"{line} --config-file {checkout.state / 'config' / 'Pulumi.dev.yaml'}"
    ]
    assert checkout.processes.environments == [checkout.env]


def test_another_backend_has_its_stack_selected_and_the_file_as_it_is(checkout: Checkout) -> None:
    checkout.env["PULUMI_BACKEND_URL"] = "s3://my-bucket"

    assert stack.up("dev", checkout.env, []) == 0
    assert checkout.pulumi.lines == ["pulumi stack select --create dev"]
    assert checkout.processes.lines == ["pulumi up --stack dev --yes"]


def test_volumes_that_are_kept_are_named_with_the_way_to_delete_them(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.volumes = ["registry-dev-quay.io", "registry-dev-docker.io"]

    assert stack.down("dev", checkout.env, []) == 0

    printed = capsys.readouterr().err
    assert "kept, and used again" in printed
    assert "docker volume rm registry-dev-docker.io registry-dev-quay.io" in printed


@pytest.mark.parametrize(("code", "volumes"), [(0, None), (0, []), (1, ["registry-dev-quay.io"])])
def test_nothing_is_said_to_be_kept_if_nothing_is_or_destroying_failed(
    checkout: Checkout,
    capsys: pytest.CaptureFixture[str],
    code: int,
    volumes: list[str] | None,
) -> None:
    checkout.processes.code, checkout.volumes = code, volumes

    assert stack.down("dev", checkout.env, []) == code
    assert "kept" not in capsys.readouterr().err
