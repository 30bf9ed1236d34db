"""Commands that end with this process."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.support.session import CannotRunError

ENDS_WITHIN_S = 20


def run(*command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command, and return its standard output.

    The command gets its own process group: an interrupt at the terminal reaches it through this
    process only, and it has ended before anything is cleaned up.

    Raises:
        CannotRunError: its exit code is not 0.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, complaints = process.communicate()
    except BaseException:
        _end(process)
        raise
    if process.returncode != 0:
        raise CannotRunError(f"{' '.join(command)} failed:\n{printed}{complaints}")
    return printed


def _end(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.communicate(timeout=ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
