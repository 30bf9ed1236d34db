"""Runs commands in a terminal, and keeps what they print and when."""

import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.session import CannotRunError

# It gives the command the terminal, so that Ctrl-C reaches it.
TOOL = "setsid"
CTRL_C = b"\x03"
CHUNK = 1 << 16
ENDS_WITHIN_S = 60
POLL_S = 0.1
# They would override what the terminal says about itself.
_HIDDEN = ("CI", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
_TERM = "xterm-256color"


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a terminal."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Printed:
    """Something that a command printed.

    Attributes:
        at_s: seconds since the start of the command.
        content: what it printed, with the terminal's escape sequences.
    """

    at_s: float
    content: bytes


def run(
    command: Sequence[str],
    size: Size,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] = os.environ,
    meanwhile: Callable[[], object] | None = None,
) -> Sequence[Printed]:
    """Run a command in a terminal of its own until it ends.

    Args:
        command: the command.
        size: the size of the terminal.
        cwd: its working directory.
        env: its environment.
        meanwhile: work to do as soon as the command has printed something. When it is done, Ctrl-C
            is pressed.

    Raises:
        CannotRunError: the exit code of the command is not 0.
    """
    started = time.monotonic()
    printed: list[Printed] = []
    with ThreadPoolExecutor(1) as pool, _started(command, size, cwd, env) as (process, terminal):
        work: Future[object] | None = None
        for content in _read(terminal):
            printed.append(Printed(time.monotonic() - started, content))
            if meanwhile and not work:
                work = pool.submit(meanwhile)
                work.add_done_callback(lambda _: _press(terminal, CTRL_C))
        code = process.wait(ENDS_WITHIN_S)
        if work:
            work.result()
    if code != 0:
        said = b"".join(one.content for one in printed).decode(errors="replace")
        raise CannotRunError(f"{' '.join(command)} failed:\n{said}")
    return printed


@contextmanager
def _started(
    command: Sequence[str], size: Size, cwd: Path | None, env: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a command; yields its process, and our end of its terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (size.rows, size.columns))
    seen = {name: value for name, value in env.items() if name not in _HIDDEN} | {"TERM": _TERM}
    process = subprocess.Popen(
        [TOOL, "--ctty", *command], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=seen
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        _end(process, ours)
        os.close(ours)


def _read(terminal: int) -> Iterator[bytes]:
    # Linux reports an error once no process has the terminal open.
    with suppress(OSError):
        while content := os.read(terminal, CHUNK):
            yield content


def _press(terminal: int, key: bytes) -> None:
    # The command may have ended.
    with suppress(OSError):
        os.write(terminal, key)


def _end(process: subprocess.Popen[bytes], terminal: int) -> None:
    """End a command that still runs, after an interrupt or an error."""
    if process.poll() is None:
        _press(terminal, CTRL_C)
        deadline = time.monotonic() + ENDS_WITHIN_S
        # What it started may keep the terminal open, so the end of its output is not awaited.
        while process.poll() is None and time.monotonic() < deadline:
            # It could not end if nobody read what it prints.
            if select.select([terminal], [], [], POLL_S)[0]:
                next(_read(terminal), None)
        process.kill()
    process.wait()
