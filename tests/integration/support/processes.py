"""Run commands with a time limit; a failure shows their output.

Limits are for an idle machine, and PATIENCE times as long on a busy one. They only end hanging
commands.
"""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.integration.support.polling import PATIENCE


class CommandFailedError(Exception):
    """A command failed; the message has its output."""


def run(
    *command: str | Path,
    within_s: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command and return its standard output.

    Raises:
        CommandFailedError: its exit code is not 0.
        subprocess.TimeoutExpired: it exceeded the time limit and was killed.
    """
    done = finish(command, within_s=within_s, env=env, cwd=cwd)
    if done.returncode != 0:
        line = " ".join(map(str, command))
        raise CommandFailedError(f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def finish(
    command: Sequence[str | Path],
    *,
    within_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command, and accept any exit code.

    Raises:
        subprocess.TimeoutExpired: it exceeded the time limit and was killed.
    """
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE * within_s,
        env=env,
        cwd=cwd,
    )
