"""Runs programs, and leaves none of their processes behind when they fail."""

import os
import re
import select
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from talos_registry_cache.talos.errors import CommandError

POLL_S = 0.05
CHUNK = 65536
LAST_LINES = 15
SUDO_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs programs and passes their output on line by line.

    Attributes:
        on_line: called with each line of output, without its end.
        grace_s: seconds between SIGTERM and SIGKILL when a process group is ended.
    """

    on_line: Callable[[str], None]
    grace_s: float = 10.0

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        pid_file: Path,
        within_s: float,
        check: Callable[[], None] = lambda: None,
        folder: Path | None = None,
    ) -> None:
        """Run a program in a process group of its own until it exits.

        If it fails, takes too long or an exception interrupts the wait, its whole group is ended.

        Args:
            argv: the program and its arguments.
            env: its complete environment.
            log: where the command line and all output are written, readable by its owner only.
            pid_file: holds the process ID while the program runs; see `end_orphan`.
            within_s: seconds after which it is ended.
            check: called while the program runs; an error that it raises ends the program.
            folder: its working directory, or None for the one of this process.

        Raises:
            CommandError: it cannot be run, failed or took too long; the message has the last lines
                of output and the path of the log.
        """
        started = time.monotonic()

        def check_all() -> None:
            if time.monotonic() >= started + within_s:
                raise _EndedError("took too long and was ended")
            check()

        try:
            with _private(log) as file:
                file.write(f"$ {shlex.join(argv)}\n".encode())
                output = _Output(file, self.on_line)
                child = _start(argv, env, folder)
                self._wait(child, output, pid_file=pid_file, check=check_all)
        except _EndedError as ended:
            took = time.monotonic() - started
            raise CommandError(
                f"{_named(argv)} {ended} after {took:.0f} s{output.tail()}\n  full log: {log}"
            ) from None
        except OSError as error:
            raise CommandError(f"cannot run {_named(argv)}: {error}") from error

    def _wait(
        self,
        child: "subprocess.Popen[bytes]",
        output: "_Output",
        *,
        pid_file: Path,
        check: Callable[[], None],
    ) -> None:
        assert child.stdout is not None  # noqa: S101 - it was started with a pipe
        # Not `with child`, which would wait for ever if it cannot be ended.
        with child.stdout as pipe:
            try:
                pid_file.write_text(f"{child.pid}\n")
                _wait(child, output, pipe, check)
            except BaseException:
                self._end(child, output, pipe)
                raise
            finally:
                with suppress(OSError):
                    pid_file.unlink(missing_ok=True)

    def _end(self, child: "subprocess.Popen[bytes]", output: "_Output", pipe: IO[bytes]) -> None:
        def wait() -> None:
            output.pass_on(pipe, POLL_S)
            _reap(child, os.WNOHANG)

        is_ended = _end_group(child.pid, self.grace_s, wait)
        output.finish(pipe)
        if is_ended:
            _reap(child)
        else:
            output.say(f"this could not be ended; run: sudo kill -KILL -- -{child.pid}")


def _start(
    argv: Sequence[str], env: Mapping[str, str], folder: Path | None
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        argv,
        env=dict(env),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        start_new_session=True,
    )


def _reap(child: "subprocess.Popen[bytes]", options: int = 0) -> None:
    """Reap a process that was ended.

    Not with `child.poll` and `child.wait`: an interrupt in the middle of them leaves their lock
    held, and they would wait for it for ever.
    """
    try:
        pid, status = os.waitpid(child.pid, options)
    except ChildProcessError:
        child.returncode = child.returncode or 0
    else:
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)


def capture(argv: Sequence[str], *, within_s: float) -> str:
    """Run a program that answers at once, and return its standard output.

    Raises:
        CommandError: it cannot be run, failed or took too long.
    """
    try:
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as child:
            try:
                out, err = child.communicate(timeout=within_s)
            except BaseException:
                _signal_group(child.pid, signal.SIGKILL)
                raise
    except subprocess.TimeoutExpired:
        raise CommandError(f"{_named(argv)} did not answer within {within_s:g} s") from None
    except OSError as error:
        raise CommandError(f"cannot run {_named(argv)}: {error}") from error
    if child.returncode:
        said = err.decode(errors="replace").strip()
        raise CommandError(f"{_named(argv)} failed with exit code {child.returncode}: {said}")
    return out.decode(errors="replace")


def end_orphan(pid_file: Path, mark: str, *, grace_s: float) -> bool:
    """End a process group that outlived the run that started it.

    Args:
        pid_file: the file that `Runner.run` wrote.
        mark: a text in the command line that tells it from another process with the same ID.
        grace_s: seconds between SIGTERM and SIGKILL.

    Returns:
        Whether there was one.
    """
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return False
    if mark not in command_line_of(pid):
        return False
    _end_group(pid, grace_s, lambda: time.sleep(POLL_S))
    return True


def command_line_of(pid: int) -> str:
    """The command line of a process; empty if it does not exist."""
    proc = Path("/proc", str(pid), "cmdline")
    try:
        return proc.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        if Path("/proc/self/cmdline").exists():
            return ""
    shown = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SUDO_WITHIN_S,
    )
    return shown.stdout


class _EndedError(Exception):
    """A program failed or was ended; the message completes a sentence that begins with its name."""


def _wait(
    child: "subprocess.Popen[bytes]",
    output: "_Output",
    pipe: IO[bytes],
    check: Callable[[], None],
) -> None:
    while child.poll() is None:
        check()
        output.pass_on(pipe, POLL_S)
    output.finish(pipe)
    if child.returncode > 0:
        raise _EndedError(f"failed with exit code {child.returncode}")
    if child.returncode < 0:
        raise _EndedError(f"was ended by {signal.Signals(-child.returncode).name}")


class _Output:
    """Writes a program's output to its log, and passes it on line by line."""

    def __init__(self, log: BinaryIO, on_line: Callable[[str], None]) -> None:
        self._log = log
        self._on_line = on_line
        self._unfinished = b""
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._at_end = False

    def pass_on(self, pipe: IO[bytes], within_s: float) -> bool:
        """Wait for output and pass it on; returns whether there was any."""
        if self._at_end:
            time.sleep(within_s)
            return False
        ready, _, _ = select.select([pipe], [], [], within_s)
        if not ready:
            return False
        chunk = os.read(pipe.fileno(), CHUNK)
        self._at_end = not chunk
        self._log.write(chunk)
        # A progress bar redraws its line with carriage returns.
        *lines, self._unfinished = re.split(rb"[\r\n]+", self._unfinished + chunk)
        for line in lines:
            self._line(line)
        return bool(chunk)

    def finish(self, pipe: IO[bytes]) -> None:
        """Pass on the remaining output. Processes that inherited the pipe may keep it open."""
        while self.pass_on(pipe, 0):
            pass
        self._line(self._unfinished)
        self._unfinished = b""

    def say(self, line: str) -> None:
        """Add a line."""
        self._log.write(f"{line}\n".encode())
        self._line(line.encode())

    def tail(self) -> str:
        """The last lines, each indented and after a line break."""
        return "".join(f"\n  {line}" for line in self._last)

    def _line(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip()
        if line:
            self._last.append(line)
            self._on_line(line)


@contextmanager
def _private(path: Path) -> Iterator[BinaryIO]:
    """Create an unbuffered file that only its owner can read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        yield file


def _end_group(group: int, grace_s: float, wait: Callable[[], object]) -> bool:
    """Terminate a process group, and kill what remains after the grace period.

    Returns:
        Whether nothing remains.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal_group(group, number)
        deadline = time.monotonic() + grace_s
        while _is_alive(group) and time.monotonic() < deadline:
            wait()
    return not _is_alive(group)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _states(group) != {"Z"}


def _states(group: int) -> set[str]:
    """The states of a group's processes, on Linux.

    Ended processes stay as zombies until their parent reaps them, which the init process of many
    containers never does.
    """
    states = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the program's name, in parentheses: the state, the parent, the group.
            state, _, of_group, *_ = stat.read_text().rpartition(")")[2].split()
            if int(of_group) == group:
                states.add(state)
    return states


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
    except PermissionError:
        # A process under sudo belongs to root.
        subprocess.run(
            ["sudo", "--non-interactive", "kill", f"-{number.value}", "--", f"-{group}"],
            check=False,
            capture_output=True,
            timeout=SUDO_WITHIN_S,
        )


def _named(argv: Sequence[str]) -> str:
    """The name of a command in errors: the program and its subcommands."""
    program, *rest = argv
    words = [Path(program).name]
    for word in rest:
        if word.startswith("-"):
            break
        words.append(word if os.sep not in word else Path(word).name)
    return " ".join(words)
