import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.paths import ROOT
from toolchain.report import SetupError, run, say, step


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_what_a_command_printed_is_returned() -> None:
    assert run(python("print('hello')")) == "hello\n"


def test_a_command_runs_where_and_with_what_it_is_told(tmp_path: Path) -> None:
    program = "import os; print(os.getcwd(), os.environ['WHO'])"

    printed = run(python(program), cwd=tmp_path, env={**os.environ, "WHO": "me"})

    assert printed == f"{tmp_path.resolve()} me\n"


def test_a_command_that_fails_is_an_error_that_ends_with_its_last_lines() -> None:
    program = "for line in range(100): print('line', line)\nraise SystemExit(3)"

    with pytest.raises(SetupError) as failed:
        run(python(program))

    first, *printed = str(failed.value).removeprefix("`").rsplit("\n", 20)
    assert first.endswith("` ended with 3:")
    assert printed == [f"line {number}" for number in range(80, 100)]


def test_errors_that_a_command_printed_are_shown() -> None:
    with pytest.raises(SetupError, match="ended with 1:\nno such package"):
        run(python("raise SystemExit('no such package')"))


def test_a_command_that_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(SetupError, match="cannot run `no-such-command --version`"):
        run(["no-such-command", "--version"])


def test_a_step_says_what_it_does_and_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    with step("boil water"):
        say("    bubbles")

    printed = capsys.readouterr()
    title, inner, done = printed.err.splitlines()
    assert (title, inner) == ("==> boil water", "    bubbles")
    assert done.startswith("    done in 0.")
    assert printed.out == ""


def test_a_step_that_fails_is_not_said_to_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SetupError), step("boil water"):
        raise SetupError("no water")

    assert capsys.readouterr().err == "==> boil water\n"


def test_a_command_in_the_foreground_has_the_time_that_it_needs_after_an_interrupt() -> None:
    cleans_up = """
import sys, time
try:
    print("started", flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    time.sleep(1)
    sys.exit(7)
"""
    program = f"""
import os, sys
from toolchain.report import run_in_foreground
sys.exit(run_in_foreground([sys.executable, "-c", {cleans_up!r}], env=dict(os.environ)))
"""
    with subprocess.Popen(
        python(program), cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        os.killpg(process.pid, signal.SIGINT)

    assert process.returncode == 7
