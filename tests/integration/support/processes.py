"""Command lines that end: each has a time limit, and says what it printed when it fails.

A limit is for an idle machine, and PATIENCE times as long on a busy one: it ends what hangs.
"""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.integration.support.polling import PATIENCE


class CommandFailedError(Exception):
    """A command ended with another code than 0; the message has what it printed."""


def run(
    *command: str | Path,
    within_s: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command to its end and return what it printed on standard output.

    Raises:
        CommandFailedError: it ended with another code than 0.
        subprocess.TimeoutExpired: it did not end in time, and was killed.
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
    """Run a command to its end, whatever its code.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
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
