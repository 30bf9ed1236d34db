"""Runs commands, and reports progress to the user."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LAST_LINES = 20


class SetupError(Exception):
    """The machine cannot be prepared; the message says what to do."""


def say(line: str) -> None:
    """Print a line for the user to standard error, apart from a command's own output."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, and report how long it took."""
    say(f"==> {title}")
    started = time.monotonic()
    yield
    say(f"    done in {time.monotonic() - started:.1f} s")


def run(
    command: Sequence[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> str:
    """Run a command, and return its standard output.

    Raises:
        SetupError: it could not be started, or its exit code is not 0. The message ends with the
            last lines that it printed.
    """
    line = " ".join(map(str, command))
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise SetupError(f"cannot run `{line}`: {error}") from error
    if done.returncode != 0:
        printed = (done.stdout + done.stderr).strip().splitlines()[-LAST_LINES:]
        raise SetupError(
            "\n".join([f"`{line}` failed with exit code {done.returncode}:", *printed])
        )
    return done.stdout


def run_in_foreground(
    command: Sequence[str], *, env: dict[str, str], cwd: Path | None = None
) -> int:
    """Run a command in the foreground of the terminal, and return its exit code.

    Ctrl-C also reaches the command, which may take its time to clean up. Without a handler, Python
    would kill it a moment later.
    """
    # Not SIG_IGN, which the command would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(command, cwd=cwd, env=env, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
