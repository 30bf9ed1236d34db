"""A stack is prepared in the checkout's own state, and what a killed run left is cleared."""

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
    """A Pulumi that creates stacks, and writes the salt for their secrets into the stack file."""

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
    """A checkout with the stack `dev` and a state of its own."""

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
    """The ID of a process that no longer runs."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


# The copy with the salt


def test_salt_is_added_to_a_copy_of_the_tracked_file(checkout: Checkout) -> None:
    copy = checkout.prepared()

    assert checkout.file.read_text() == SETTINGS
    assert copy == checkout.state / "config" / "Pulumi.dev.yaml"
    assert copy.read_text() == f"{SETTINGS}{SALT}\n"

    assert checkout.prepared().read_text() == copy.read_text()
    assert checkout.pulumi.lines == ["pulumi stack init --no-select dev"]

    checkout.file.write_text("config: {}\n")
    assert checkout.prepared().read_text() == f"config: {{}}\n{SALT}\n"


@pytest.mark.parametrize("is_prepared", [False, True])
def test_stack_file_that_has_a_salt_is_used_unchanged(
    checkout: Checkout, *, is_prepared: bool
) -> None:
    if is_prepared:
        checkout.prepared()
    checkout.file.write_text(f"{OWN_SALT}\n{SETTINGS}")

    assert checkout.prepared() == checkout.file
    assert checkout.file.read_text() == f"{OWN_SALT}\n{SETTINGS}"


def test_stack_created_by_other_means_uses_its_own_file(checkout: Checkout) -> None:
    stacks = checkout.state / ".pulumi" / "stacks" / stack.PROJECT
    stacks.mkdir(parents=True)
    (stacks / "dev.json").write_text("{}")

    assert checkout.prepared() == checkout.file
    assert checkout.pulumi.lines == []


def test_tracked_file_is_restored_if_the_stack_cannot_be_created(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: Sequence[str], **_: Any) -> str:
        checkout.file.write_text(f"{SETTINGS}{SALT}\n")
        raise SetupError(f"{command} failed")

    monkeypatch.setattr(stack, "run", fail)
    with pytest.raises(SetupError):
        checkout.prepared()

    assert checkout.file.read_text() == SETTINGS


# What a killed run left


@pytest.mark.parametrize(
    ("text", "is_kept"), [("", False), ("\n", False), ('{"user.content_type": "text"}', True)]
)
def test_only_truncated_attributes_of_a_state_are_removed(
    checkout: Checkout, text: str, *, is_kept: bool
) -> None:
    checkout.prepared()
    (checkpoint,) = checkout.state.rglob("dev.json")
    attributes = checkpoint.with_name("dev.json.attrs")
    attributes.write_text(text)

    checkout.prepared()

    assert attributes.exists() is is_kept
    assert checkpoint.read_text() == "{}"


def test_lock_of_a_killed_run_is_released(
    checkout: Checkout, dead_pid: int, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.prepared()
    checkout.lock(dead_pid)

    checkout.prepared()

    assert checkout.pulumi.lines[1:] == ["pulumi cancel --yes --stack dev"]
    assert f"(process {dead_pid}) was killed" in capsys.readouterr().err


@pytest.mark.parametrize("owner", ["running", "another user", "another machine", "another stack"])
def test_any_other_lock_is_kept(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, dead_pid: int, owner: str
) -> None:
    def forbid(*_: int) -> None:
        raise PermissionError

    if owner == "another user":
        monkeypatch.setattr("os.kill", forbid)
    checkout.lock(
        os.getpid() if owner == "running" else dead_pid,
        hostname="another-machine" if owner == "another machine" else None,
        name="guide" if owner == "another stack" else "dev",
    )

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
def test_command_runs_pulumi_with_the_copied_stack_file_unless_the_backend_is_elsewhere(
    checkout: Checkout, command: Any, line: str
) -> None:
    checkout.processes.code = 3

    assert command("dev", checkout.env, ["--refresh"]) == 3
    copy = checkout.state / "config" / "Pulumi.dev.yaml"
    assert checkout.processes.lines == [f"{line} --config-file {copy}"]

    checkout.env["PULUMI_BACKEND_URL"] = "s3://my-bucket"
    command("dev", checkout.env, ["--refresh"])
    assert checkout.pulumi.lines[-1] == "pulumi stack select --create dev"
    assert checkout.processes.lines[1:] == [line]


@pytest.mark.parametrize(
    ("code", "volumes", "is_reported"),
    [(0, ["b", "a"], True), (0, None, False), (0, [], False), (1, ["a"], False)],
)
def test_kept_volumes_are_listed_after_a_successful_destroy(
    checkout: Checkout,
    capsys: pytest.CaptureFixture[str],
    code: int,
    volumes: list[str] | None,
    *,
    is_reported: bool,
) -> None:
    checkout.processes.code, checkout.volumes = code, volumes

    assert stack.down("dev", checkout.env, []) == code
    assert ("docker volume rm a b\n" in capsys.readouterr().err) is is_reported
