import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from talos_registry_cache.talos import process
from talos_registry_cache.talos.errors import CommandError
from talos_registry_cache.talos.process import Runner
from tests.unit.talos import programs

ROOT = Path(__file__).resolve().parents[3]
SOON_S = 60.0
# A shell has come to its first commands by then.
STARTED_WITHIN_S = 2.0


@dataclass
class Bench:
    """A runner, with the lines that it passed on."""

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
        self, script: str, within_s: float = SOON_S, env: Mapping[str, str] | None = None
    ) -> None:
        program = programs.shell(self.folder / "talosctl", script)
        Runner(self.lines.append, self.grace_s).run(
            [program, "cluster", "create", "--name", "my demo"],
            env={"PATH": os.environ["PATH"], **(env or {})},
            log=self.log,
            pid_file=self.pid_file,
            within_s=within_s,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and waits to be noticed does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def pids(*files: Path) -> Iterator[int]:
    """The process ids that scripts write, as soon as they are there."""
    for file in files:
        deadline = time.monotonic() + SOON_S
        while not (file.exists() and file.read_text().strip()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield int(file.read_text())


def eventually_dead(pid: int) -> bool:
    deadline = time.monotonic() + SOON_S
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


# A program that ends well


def test_output_is_passed_on_line_by_line_and_kept(bench: Bench) -> None:
    bench.run("echo one; echo two >&2; printf 'three\\rfour'")

    assert bench.lines == ["one", "two", "three", "four"]
    command, output = bench.log.read_bytes().decode().split("\n", 1)
    assert command == f"$ {bench.folder}/talosctl cluster create --name 'my demo'"
    assert output == "one\ntwo\nthree\rfour"


def test_output_comes_as_it_is_printed(bench: Bench) -> None:
    """The script goes on only when its first line has come out at this end."""
    go_on = bench.folder / "go"

    def on_line(line: str) -> None:
        bench.lines.append(line)
        go_on.touch()

    program = programs.shell(
        bench.folder / "talosctl", f"echo first; while ! [ -e {go_on} ]; do sleep 0.01; done"
    )
    Runner(on_line).run(
        [program],
        env=os.environ,
        log=bench.log,
        pid_file=bench.pid_file,
        within_s=SOON_S,
    )
    assert bench.lines == ["first"]


def test_only_its_owner_can_read_the_log(bench: Bench) -> None:
    bench.log.write_text("of an earlier run")
    bench.log.chmod(0o644)
    bench.run("echo one")

    assert bench.log.stat().st_mode & 0o777 == 0o600
    assert "earlier" not in bench.log.read_text()


def test_the_environment_is_the_one_that_is_given(bench: Bench) -> None:
    bench.run("echo $ANSWER $HOME", env={"ANSWER": "42"})

    assert bench.lines == ["42"]


def test_what_runs_on_in_the_background_is_left_alone(bench: Bench) -> None:
    bench.run(f"sleep 60 & echo $! > {bench.folder}/child; echo done")

    (child,) = pids(bench.folder / "child")
    assert is_alive(child)
    assert bench.lines == ["done"]
    os.kill(child, signal.SIGKILL)


def test_nothing_says_afterwards_that_it_runs(bench: Bench) -> None:
    bench.run(f"while ! [ -s {bench.pid_file} ]; do sleep 0.01; done")

    assert not bench.pid_file.exists()


# One that fails


def test_a_failure_shows_the_last_lines_and_where_the_rest_is(bench: Bench) -> None:
    with pytest.raises(CommandError) as error:
        bench.run("seq 1 100; echo nothing works >&2; exit 1")

    first, *last, log = str(error.value).splitlines()
    assert first.startswith("talosctl cluster create failed with exit code 1 after 0 s")
    assert last[0] == "  87"
    assert last[-1] == "  nothing works"
    assert log == f"  full log: {bench.log}"
    assert len(bench.log.read_text().splitlines()) == 102


def test_a_failure_ends_what_runs_on_in_the_background(bench: Bench) -> None:
    with pytest.raises(CommandError):
        bench.run(f"sleep 60 & echo $! > {bench.folder}/child; exit 1")

    (child,) = pids(bench.folder / "child")
    assert eventually_dead(child)


def test_one_that_is_killed(bench: Bench) -> None:
    with pytest.raises(CommandError, match="talosctl cluster create was ended by SIGKILL"):
        bench.run("kill -9 $$")


def test_one_that_cannot_be_run(bench: Bench) -> None:
    with pytest.raises(CommandError, match=r"cannot run nothing: .*No such file"):
        Runner(bench.lines.append).run(
            ["/there/is/nothing"], env={}, log=bench.log, pid_file=bench.pid_file, within_s=1
        )


def test_a_log_that_cannot_be_written(bench: Bench) -> None:
    bench.folder = bench.folder / "missing"
    with pytest.raises(CommandError, match=r"cannot run talosctl: .*No such file"):
        Runner(bench.lines.append).run(
            ["talosctl"], env={}, log=bench.log, pid_file=bench.pid_file, within_s=1
        )


# One that takes too long


def test_one_that_takes_too_long_is_ended_with_all_its_processes(bench: Bench) -> None:
    script = f"echo $$ > {bench.folder}/leader; sleep 60 & echo $! > {bench.folder}/child; wait"
    with pytest.raises(CommandError, match=r"create was not done and was ended after \d+ s"):
        bench.run(script, within_s=STARTED_WITHIN_S)

    assert all(map(eventually_dead, pids(bench.folder / "leader", bench.folder / "child")))


def test_one_that_does_not_end_when_asked_is_killed(bench: Bench) -> None:
    bench.grace_s = 0.3
    with pytest.raises(CommandError):
        bench.run(
            f"trap 'echo not yet' TERM; echo $$ > {bench.folder}/leader; "
            "while true; do sleep 0.1; done",
            within_s=STARTED_WITHIN_S,
        )

    (leader,) = pids(bench.folder / "leader")
    assert eventually_dead(leader)
    assert "not yet" in bench.lines


def test_what_it_says_when_it_is_asked_to_end_is_kept(bench: Bench) -> None:
    with pytest.raises(CommandError, match="context canceled"):
        bench.run(
            "trap 'echo context canceled; exit 1' TERM; while true; do sleep 0.05; done",
            within_s=STARTED_WITHIN_S,
        )


def test_one_that_prints_without_end_is_ended_in_time(bench: Bench) -> None:
    started = time.monotonic()
    with pytest.raises(CommandError, match="was not done"):
        bench.run("while true; do echo again; done", within_s=0.3)
    assert time.monotonic() - started < SOON_S


# One that is interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_us_ends_it(bench: Bench, number: signal.Signals) -> None:
    leader = bench.folder / "leader"
    program = programs.shell(bench.folder / "talosctl", f"echo $$ > {leader}; sleep 60")
    ours = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import os, sys; from pathlib import Path\n"
                "from talos_registry_cache.talos.process import Runner\n"
                "program, folder = sys.argv[1], Path(sys.argv[2])\n"
                "Runner(print).run([program], env=os.environ, log=folder / 'log', "
                "pid_file=folder / 'pid', within_s=60)"
            ),
            program,
            str(bench.folder),
        ],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    (pid,) = pids(leader)
    ours.send_signal(number)

    assert ours.wait(SOON_S) in {-signal.SIGINT, 128 + signal.SIGTERM}
    assert eventually_dead(pid)
    assert not bench.pid_file.exists()


def test_an_error_of_who_listens_ends_it(bench: Bench) -> None:
    def on_line(line: str) -> None:
        raise KeyError(line)

    leader = bench.folder / "leader"
    program = programs.shell(bench.folder / "talosctl", f"echo $$ > {leader}; echo x; sleep 60")
    with pytest.raises(KeyError):
        Runner(on_line).run(
            [program],
            env=os.environ,
            log=bench.log,
            pid_file=bench.pid_file,
            within_s=SOON_S,
        )
    (pid,) = pids(leader)
    assert eventually_dead(pid)


def test_what_is_roots_is_ended_through_sudo(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = os.killpg

    def refuse(group: int, number: int) -> None:
        if number:
            raise PermissionError
        kill(group, number)

    asked = bench.folder / "asked"
    programs.shell(bench.folder / "sudo", f'echo "$@" >> {asked}; shift; exec "$@"')
    monkeypatch.setenv("PATH", f"{bench.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "killpg", refuse)
    with pytest.raises(CommandError, match="was not done"):
        bench.run("echo $$ > $PIDFILE; sleep 60", 0.5, {"PIDFILE": str(bench.folder / "leader")})

    (leader,) = pids(bench.folder / "leader")
    assert eventually_dead(leader)
    assert asked.read_text().startswith(f"--non-interactive kill -15 -- -{leader}\n")


# One whose parent was killed


def orphan(folder: Path) -> "subprocess.Popen[bytes]":
    program = programs.shell(folder / "talosctl", "sleep 60")
    left = programs.started(program, "--state", str(folder))
    (folder / "pid").write_text(f"{left.pid}\n")
    return left


def test_what_a_killed_run_has_left_running_is_ended(tmp_path: Path) -> None:
    left = orphan(tmp_path)
    threading.Thread(target=left.wait).start()

    assert process.end_orphan(tmp_path / "pid", str(tmp_path), grace_s=5)
    assert left.wait(SOON_S) == -signal.SIGTERM


def test_another_process_of_the_same_number_is_left_alone(tmp_path: Path) -> None:
    left = orphan(tmp_path)

    assert not process.end_orphan(tmp_path / "pid", "/another/cluster", grace_s=5)
    assert left.poll() is None
    left.kill()
    left.wait()


@pytest.mark.parametrize("text", ["", "garbage", "999999999"])
def test_a_note_of_a_process_that_is_gone(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert not process.end_orphan(tmp_path / "pid", "talosctl", grace_s=5)
    assert not process.end_orphan(tmp_path / "missing", "talosctl", grace_s=5)


# One that answers at once


def test_capture_returns_standard_output_only(tmp_path: Path) -> None:
    program = programs.shell(tmp_path / "program", "echo out; echo err >&2")
    assert process.capture([program], within_s=SOON_S) == "out\n"
