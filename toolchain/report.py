"""Runs commands, and reports progress to the user."""

import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LAST_LINES = 20
SAY_EVERY_S = 10.0
# Before that, the rate says little.
ESTIMATE_FROM = 0.1


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
    with _started(command):
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False
        )
    _check(command, done.returncode, (done.stdout + done.stderr).strip().splitlines())
    return done.stdout


def run_watched(
    command: Sequence[str | Path],
    on_line: Callable[[str], object],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> None:
    """Run a command, and call a function with each line that it prints.

    Raises:
        SetupError: as for `run`.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    with (
        _started(command),
        subprocess.Popen(
            command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        for line in process.stdout or ():
            last.append(line.rstrip())
            on_line(last[-1])
    _check(command, process.returncode, last)


class Count:
    """Says now and then how many parts of a long step are done, and how long the rest may take."""

    def __init__(self, total: int, what: str) -> None:
        """Begin to count.

        Args:
            total: how many parts there are at most.
            what: the word for them, such as packages.
        """
        self._total, self._what = total, what
        self._done = 0
        self._started = self._said = time.monotonic()

    def add(self) -> None:
        """Count a part."""
        self._done += 1
        now = time.monotonic()
        if now - self._said >= SAY_EVERY_S:
            self._said = now
            say(f"    {self._done} of {self._total} {self._what}{self._left(now)}")

    def _left(self, now: float) -> str:
        if self._done < ESTIMATE_FROM * self._total:
            return ""
        left_s = (now - self._started) / self._done * (self._total - self._done)
        return f", less than {left_s // 60 + 1:.0f} min left"


@contextmanager
def _started(command: Sequence[str | Path]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(f"cannot run `{_line(command)}`: {error}") from error


def _check(command: Sequence[str | Path], code: int, printed: Iterable[str]) -> None:
    if code != 0:
        last = list(printed)[-LAST_LINES:]
        raise SetupError("\n".join([f"`{_line(command)}` failed with exit code {code}:", *last]))


def _line(command: Sequence[str | Path]) -> str:
    return " ".join(map(str, command))


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
