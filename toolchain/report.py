"""Says what is being done, and how long it took."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LAST_LINES = 20


class SetupError(Exception):
    """The machine cannot be made ready; the message says what to do about it."""


def say(line: str) -> None:
    """Print one line for the person at the terminal, apart from a command's own output."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, and say at its end how long it took."""
    say(f"==> {title}")
    started = time.monotonic()
    yield
    say(f"    done in {time.monotonic() - started:.1f} s")


def run(
    command: Sequence[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> str:
    """Run a command to its end and return what it printed on standard output.

    Raises:
        SetupError: it could not be started, or ended with another code than 0. The message
            ends with the last lines that it printed.
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
        raise SetupError("\n".join([f"`{line}` ended with {done.returncode}:", *printed]))
    return done.stdout


def run_in_foreground(
    command: Sequence[str], *, env: dict[str, str], cwd: Path | None = None
) -> int:
    """Run a command that has the terminal, and return its exit code.

    An interrupt at the terminal reaches the command too. It is left to it, with the time that it
    needs to clean up; otherwise Python would kill it a moment later.
    """
    # A handler and not SIG_IGN, which the command would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(command, cwd=cwd, env=env, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
