"""What a preview runs: Pulumi on a state of its own, and killed with all that it has started."""

import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from talos_registry_cache.review import environment, janitor
from talos_registry_cache.review.errors import ReviewError

COMMAND_WITHIN_S = 900
PROGRAM_ANSWERS_WITHIN_S = 60
CLEAN_WITHIN_S = 120
SIMULATE = "TALOS_REGISTRY_CACHE_SIMULATE"

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended.

    Attributes:
        code: its exit code.
        stdout: what it printed.
        stderr: what it said beside that.
    """

    code: int
    stdout: str
    stderr: str


class Commands:
    """Runs a version of the program, and has the janitor clean up after it.

    All that is run sees the environment of `review.environment` alone.
    """

    def __init__(self, folder: Path, cleaner: "subprocess.Popen[str]") -> None:
        """Prepare the state.

        Args:
            folder: where the state is kept.
            cleaner: the janitor.
        """
        self._cleaner = cleaner
        # A signal may come while the main thread holds it.
        self._lock = threading.RLock()
        self._running: set[int] = set()
        self._is_stopped = False
        self._env = _environment(folder)

    def pulumi(self, *arguments: str, cwd: Path) -> Done:
        """Run a Pulumi command to its end, whatever its code.

        Raises:
            ReviewError: it cannot be run, or took too long.
        """
        line = ["pulumi", "--non-interactive", "--color", "never", *arguments]
        return self._finish(line, cwd, COMMAND_WITHIN_S)

    def python(self, code: str, *, cwd: Path) -> Done:
        """Run Python code that imports a version of the program, whatever its exit code.

        Raises:
            ReviewError: it cannot be run, or took too long.
        """
        return self._finish([sys.executable, "-c", code], cwd, PROGRAM_ANSWERS_WITHIN_S)

    def stop(self) -> None:
        """Kill what runs, and start nothing any more."""
        with self._lock:
            self._is_stopped = True
            janitor.kill_sessions(self._running)

    def _finish(self, line: list[str], cwd: Path, within_s: float) -> Done:
        process = self._start(line, cwd)
        try:
            stdout, stderr = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            raise ReviewError(f"`{' '.join(line)}` took more than {within_s} s") from None
        finally:
            self._end(process)
        return Done(process.returncode, stdout, stderr)

    def _start(self, line: list[str], cwd: Path) -> "subprocess.Popen[str]":
        with self._lock:
            if self._is_stopped:
                raise ReviewError("stopped")
            try:
                process = subprocess.Popen(
                    line,
                    cwd=cwd,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            except OSError as error:
                raise ReviewError(f"cannot run {line[0]}: {error}") from None
            self._running.add(process.pid)
            self._tell(f"+{process.pid}\n")
            return process

    def _end(self, process: "subprocess.Popen[str]") -> None:
        with self._lock:
            if process.poll() is None:
                janitor.kill_sessions([process.pid])
                process.communicate()
            self._running.discard(process.pid)
            self._tell(f"-{process.pid}\n")

    def _tell(self, line: str) -> None:
        # A janitor that is gone is found out at the end.
        if self._cleaner.stdin:
            with suppress(BrokenPipeError):
                self._cleaner.stdin.write(line)
                self._cleaner.stdin.flush()


@contextmanager
def cleaned_up(root: Path, prefix: str) -> Iterator[tuple[Path, Commands]]:
    """A new folder, and the commands of a run; nothing of both is left at the end.

    Args:
        root: the checkout.
        prefix: what the names of the run's stacks begin with.

    Raises:
        ReviewError: something could not be removed.
    """
    folder = root / ".state" / "previews" / prefix.removesuffix("-")
    folder.mkdir(parents=True, mode=0o700)
    cleaner = subprocess.Popen(
        [sys.executable, "-m", "talos_registry_cache.review.janitor", prefix, str(folder)],
        cwd=root,
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    commands = Commands(folder, cleaner)

    def interrupt(number: int, _: object) -> None:
        # Whoever waits for a command would wait for its end.
        commands.stop()
        sys.exit(128 + number)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield folder, commands
    finally:
        commands.stop()
        if cleaner.stdin:
            cleaner.stdin.close()
        code = cleaner.wait(CLEAN_WITHIN_S)
        for number, handler in before.items():
            signal.signal(number, handler)
    if code != 0:
        raise ReviewError(f"not all was removed; see docker ps --all --filter name={prefix}")


def _environment(folder: Path) -> Mapping[str, str]:
    state = folder / "state"
    state.mkdir()
    return {
        **environment.make(folder),
        "PULUMI_BACKEND_URL": state.as_uri(),
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(_passphrase(folder)),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        SIMULATE: "1",
    }


def _passphrase(folder: Path) -> Path:
    file = folder / "passphrase"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    return file
