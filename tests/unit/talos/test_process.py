import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import pytest

from talos_registry_cache.talos import process
from talos_registry_cache.talos.errors import CommandError
from talos_registry_cache.talos.process import Runner
from tests.unit.talos import programs

SOON_S = 60.0
# A shell has reached its first commands by then.
STARTED_WITHIN_S = 2.0


@dataclass
class Bench:
    """A runner, and the lines that it passed on."""

    folder: Path
    lines: list[str] = field(default_factory=list)
    grace_s: float = 5.0

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def pid_file(self) -> Path:
        return self.folder / "pid"

    def run(
        self,
        script: str,
        within_s: float = SOON_S,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Run a script as talosctl. It knows its folder as `$F`."""
        program = programs.shell(self.folder / "talosctl", f"F={self.folder}\n{script}")
        Runner(on_line or self.lines.append, self.grace_s).run(
            [program, "cluster", "create", "--name", "my demo"],
            env={"PATH": os.environ["PATH"], **(env or {})},
            log=self.log,
            pid_file=self.pid_file,
            within_s=within_s,
            check=check,
        )

    def pid(self, name: str) -> int:
        """A process ID that a script writes, as soon as it exists."""
        file = self.folder / name
        deadline = time.monotonic() + SOON_S
        while not (file.exists() and file.read_text().strip()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return int(file.read_text())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def eventually_dead(pid: int) -> bool:
    deadline = time.monotonic() + SOON_S
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


# A program that succeeds


def test_output_is_passed_on_line_by_line_and_logged_in_private(bench: Bench) -> None:
    bench.log.write_text("an earlier run")
    bench.log.chmod(0o644)
    bench.run("echo $ANSWER $HOME; echo two >&2; printf 'three\\rfour'", env={"ANSWER": "42"})

    assert bench.lines == ["42", "two", "three", "four"]
    command, output = bench.log.read_bytes().decode().split("\n", 1)
    assert command == f"$ {bench.folder}/talosctl cluster create --name 'my demo'"
    assert output == "42\ntwo\nthree\rfour"
    assert bench.log.stat().st_mode & 0o777 == 0o600
    assert not bench.pid_file.exists()


def test_output_is_passed_on_at_once_and_the_pid_file_exists(bench: Bench) -> None:
    """The script goes on only when its first line has been passed on."""
    bench.run(
        "echo first; while ! [ -e $F/go ] || ! [ -s $F/pid ]; do sleep 0.01; done",
        on_line=lambda _: (bench.folder / "go").touch(),
    )


def test_background_processes_survive_success(bench: Bench) -> None:
    bench.run("sleep 60 & echo $! > $F/child; echo done")

    child = bench.pid("child")
    assert is_alive(child)
    assert bench.lines == ["done"]
    os.kill(child, signal.SIGKILL)


# A program that fails


def test_a_failure_shows_the_last_lines_and_the_log(bench: Bench) -> None:
    with pytest.raises(CommandError) as error:
        bench.run("seq 1 100; echo nothing works >&2; exit 1")

    first, *last, log = str(error.value).splitlines()
    assert first.startswith("talosctl cluster create failed with exit code 1 after 0 s")
    assert last[0] == "  87"
    assert last[-1] == "  nothing works"
    assert log == f"  full log: {bench.log}"
    assert len(bench.log.read_text().splitlines()) == 102


def test_a_failure_ends_background_processes(bench: Bench) -> None:
    with pytest.raises(CommandError):
        bench.run("sleep 60 & echo $! > $F/child; exit 1")

    assert eventually_dead(bench.pid("child"))


def test_a_killed_program_is_a_failure(bench: Bench) -> None:
    with pytest.raises(CommandError, match="talosctl cluster create was ended by SIGKILL"):
        bench.run("kill -9 $$")


@pytest.mark.parametrize(
    ("program", "log"), [("/there/is/nothing", "log"), ("true", "missing/log")]
)
def test_a_program_or_log_that_does_not_exist_is_a_failure(
    bench: Bench, program: str, log: str
) -> None:
    with pytest.raises(CommandError, match=r"cannot run (nothing|true): .*No such file"):
        Runner(bench.lines.append).run(
            [program], env={}, log=bench.folder / log, pid_file=bench.pid_file, within_s=1
        )


# A program that takes too long, or whose runner is interrupted


def test_a_program_that_takes_too_long_is_ended_with_all_its_processes(bench: Bench) -> None:
    with pytest.raises(CommandError, match=r"took too long and was ended after \d+ s"):
        bench.run(
            "echo $$ > $F/leader; sleep 60 & echo $! > $F/child; wait", within_s=STARTED_WITHIN_S
        )

    assert eventually_dead(bench.pid("leader"))
    assert eventually_dead(bench.pid("child"))


def test_a_program_that_ignores_sigterm_is_killed(bench: Bench) -> None:
    bench.grace_s = 0.3
    with pytest.raises(CommandError, match="not yet"):
        bench.run(
            "trap 'echo not yet' TERM; echo $$ > $F/leader; while true; do sleep 0.1; done",
            within_s=STARTED_WITHIN_S,
        )

    assert eventually_dead(bench.pid("leader"))


def test_a_program_that_prints_without_end_is_ended_in_time(bench: Bench) -> None:
    started = time.monotonic()
    with pytest.raises(CommandError, match="took too long"):
        bench.run("while true; do echo again; done", within_s=0.3)
    assert time.monotonic() - started < SOON_S


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_exception_ends_the_program(bench: Bench, error: type[BaseException]) -> None:
    def on_line(line: str) -> None:
        raise error(line)

    with pytest.raises(error):
        bench.run("echo $$ > $F/leader; echo x; sleep 60", on_line=on_line)

    assert eventually_dead(bench.pid("leader"))
    assert not bench.pid_file.exists()


def test_an_error_of_the_check_ends_the_program(bench: Bench) -> None:
    def check() -> None:
        if (bench.folder / "leader").exists():
            raise LookupError

    with pytest.raises(LookupError):
        bench.run("echo $$ > $F/leader; sleep 60", check=check)

    assert eventually_dead(bench.pid("leader"))


def test_processes_of_root_are_ended_through_sudo(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = os.killpg

    def refuse(group: int, number: int) -> None:
        if number:
            raise PermissionError
        kill(group, number)

    asked = bench.folder / "asked"
    programs.shell(bench.folder / "sudo", f'echo "$@" >> {asked}; shift; exec "$@"')
    monkeypatch.setenv("PATH", f"{bench.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "killpg", refuse)
    with pytest.raises(CommandError, match="took too long"):
        bench.run("echo $$ > $F/leader; sleep 60", 0.5)

    leader = bench.pid("leader")
    assert eventually_dead(leader)
    assert asked.read_text().startswith(f"--non-interactive kill -15 -- -{leader}\n")


# A program whose runner was killed


def orphan(folder: Path) -> Popen[bytes]:
    program = programs.shell(folder / "talosctl", "sleep 60")
    left = programs.started(program, "--state", str(folder))
    (folder / "pid").write_text(f"{left.pid}\n")
    return left


def test_an_orphan_is_ended(tmp_path: Path) -> None:
    left = orphan(tmp_path)
    threading.Thread(target=left.wait).start()

    assert process.end_orphan(tmp_path / "pid", str(tmp_path), grace_s=5)
    assert left.wait(SOON_S) == -signal.SIGTERM


def test_another_process_with_the_same_id_is_left_alone(tmp_path: Path) -> None:
    left = orphan(tmp_path)

    assert not process.end_orphan(tmp_path / "pid", "/another/cluster", grace_s=5)
    assert left.poll() is None
    left.kill()
    left.wait()


@pytest.mark.parametrize("text", ["", "garbage", "999999999"])
def test_a_pid_file_without_a_process_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert not process.end_orphan(tmp_path / "pid", "talosctl", grace_s=5)
    assert not process.end_orphan(tmp_path / "missing", "talosctl", grace_s=5)


class InterruptedPopen(Popen[bytes]):
    """A process whose first `poll` is interrupted while it holds its lock, as by Ctrl-C."""

    def poll(self) -> int | None:
        lock: threading.Lock = vars(self)["_waitpid_lock"]
        lock.acquire(blocking=False)
        raise KeyboardInterrupt


def test_an_interrupt_in_the_middle_of_a_poll_ends_the_program(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", InterruptedPopen)

    with pytest.raises(KeyboardInterrupt):
        bench.run("sleep 60")

    assert not bench.pid_file.exists()
