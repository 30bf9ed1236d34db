"""The commands for a stack: `make up`, `preview`, `output` and `down`."""

import json
import os
import re
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from toolchain import engine
from toolchain.paths import ROOT, STATE, virtualenv_bin
from toolchain.report import SetupError, run, run_in_foreground, say

STACK_LABEL = "talos-registry-cache.stack"


def _project() -> str:
    """The project's name, which `pulumi new` gives to a copy."""
    (name,) = re.findall(r"^name: (\S+)$", (ROOT / "Pulumi.yaml").read_text(), re.MULTILINE)
    return str(name)


PROJECT = _project()


def file(stack: str) -> Path:
    """Return the stack file of a stack.

    Raises:
        SetupError: there is none.
    """
    found = ROOT / f"Pulumi.{stack}.yaml"
    if not found.exists():
        allowed = ", ".join(sorted(path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml")))
        raise SetupError(f"no stack file {found.name}; stacks: {allowed}")
    return found


def up(stack: str, env: dict[str, str], arguments: Sequence[str]) -> int:
    """Converge a stack, and print the path of `cachectl`; return Pulumi's exit code."""
    code = _pulumi("up", stack, env, ["--yes", *arguments])
    if code == 0:
        say(f"to see, fill and prove the caches: {virtualenv_bin() / 'cachectl'} --help")
    return code


def preview(stack: str, env: dict[str, str], arguments: Sequence[str]) -> int:
    """Show what `up` would do; return Pulumi's exit code."""
    return _pulumi("preview", stack, env, ["--diff", *arguments])


def down(stack: str, env: dict[str, str], arguments: Sequence[str]) -> int:
    """Destroy a stack's resources, and list the kept volumes; return Pulumi's exit code."""
    code = _pulumi("destroy", stack, env, ["--yes", *arguments])
    kept = _volumes(stack, env["DOCKER_HOST"])
    if code == 0 and kept:
        say(f"kept for the next `make up`: {', '.join(kept)}")
        say(f"to delete them: docker volume rm {' '.join(kept)}")
    return code


def output(stack: str, env: dict[str, str], arguments: Sequence[str]) -> int:
    """Print the outputs of a stack, or one of them; return Pulumi's exit code."""
    line = ["pulumi", "stack", "output", "--stack", stack, *arguments]
    return run_in_foreground(line, env=env, cwd=ROOT)


def _pulumi(command: str, stack: str, env: dict[str, str], arguments: Sequence[str]) -> int:
    line = ["pulumi", command, "--stack", stack, *arguments]
    if env["PULUMI_BACKEND_URL"] == STATE.as_uri():
        line += ["--config-file", str(_prepare_local(stack, env))]
    else:
        run(["pulumi", "stack", "select", "--create", stack], cwd=ROOT, env=env)
    return run_in_foreground(line, env=env, cwd=ROOT)


def _prepare_local(stack: str, env: dict[str, str]) -> Path:
    """Create the stack in the checkout's state if necessary, and clear what a killed run left.

    Pulumi writes the salt for its secrets into the stack file. It goes into a copy instead, so that
    the first `up` does not modify a tracked file. A stack file that already has a salt is used
    unchanged.

    Returns:
        The stack file for Pulumi.
    """
    checkpoint = STATE / ".pulumi" / "stacks" / PROJECT / f"{stack}.json"
    original = file(stack)
    copy = STATE / "config" / original.name
    if not checkpoint.exists():
        text = original.read_bytes()
        try:
            run(["pulumi", "stack", "init", "--no-select", stack], cwd=ROOT, env=env)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(original, copy)
        finally:
            original.write_bytes(text)
    _mend(checkpoint)
    _release_stale_lock(stack, env)
    settings = original.read_text()
    if _salt(settings) or not copy.exists():
        return original
    copy.write_text(f"{settings.rstrip()}\n{_salt(copy.read_text())}\n")
    return copy


def _salt(settings: str) -> str:
    found = re.search(r"^(encryptionsalt|secretsprovider): .+$", settings, re.MULTILINE)
    return found[0] if found else ""


def _mend(checkpoint: Path) -> None:
    """Repair a state if Pulumi was killed while writing it.

    Pulumi replaces a state file atomically, but not the attributes file that it writes next to it
    first (gocloud.dev, fileblob). It can read neither if the attributes are truncated.
    """
    attributes = checkpoint.with_name(f"{checkpoint.name}.attrs")
    if attributes.exists() and not attributes.read_bytes().strip():
        say(f"the last run was killed while writing {checkpoint.name}: repaired")
        attributes.unlink()


def _release_stale_lock(stack: str, env: dict[str, str]) -> None:
    """Release the lock of a Pulumi process that was killed."""
    locks = STATE / ".pulumi" / "locks" / "organization" / PROJECT / stack
    for held in locks.glob("*.json"):
        lock = json.loads(held.read_text())
        if lock["hostname"] == socket.gethostname() and not _alive(lock["pid"]):
            say(f"the last run on {stack} (process {lock['pid']}) was killed: lock released")
            run(["pulumi", "cancel", "--yes", "--stack", stack], cwd=ROOT, env=env)
            return


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _volumes(stack: str, host: str) -> list[str]:
    filters = quote(json.dumps({"label": [f"{STACK_LABEL}={stack}"]}))
    _, answer = engine.request(host, "GET", f"/volumes?filters={filters}")
    return sorted(volume["Name"] for volume in json.loads(answer)["Volumes"] or [])
