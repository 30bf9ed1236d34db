"""Commands are run, and their failures and progress reported."""

import itertools
import os
import signal
import subprocess
import sys

import pytest

from toolchain.paths import ROOT
from toolchain.report import Count, SetupError, run, run_watched, step


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_failed_command_is_an_error_with_its_last_lines(capsys: pytest.CaptureFixture[str]) -> None:
    program = "for line in range(100): print('line', line)\nimport sys; sys.exit('no such package')"
    with pytest.raises(SetupError) as failed, step("install"):
        run(python(program))

    assert "` failed with exit code 1:\n" in str(failed.value)
    *lines, last = str(failed.value).splitlines()[-20:]
    assert (lines[0], last) == ("line 81", "no such package")
    assert capsys.readouterr().err == "==> install\n", "the step is not done"
    with pytest.raises(SetupError, match="cannot run `no-such-command --version`"):
        run(["no-such-command", "--version"])


def test_each_line_of_a_watched_command_is_passed_on_and_a_failure_shows_the_last_ones() -> None:
    seen: list[str] = []
    program = "import sys\nfor line in range(100): print(line)\nsys.exit('broken')"

    with pytest.raises(SetupError, match=r"failed with exit code 1:\n81\n(.+\n)+broken$"):
        run_watched(python(program), seen.append)

    assert seen == [*map(str, range(100)), "broken"]
    with pytest.raises(SetupError, match="cannot run `no-such-command --version`"):
        run_watched(["no-such-command", "--version"], seen.append)


def test_a_count_is_said_now_and_then_with_an_estimate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = itertools.count()
    monkeypatch.setattr("toolchain.report.time.monotonic", lambda: float(next(seconds)))
    count = Count(200, "packages")

    for _ in range(40):
        count.add()

    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "    10 of 200 packages"
    assert last == "    40 of 200 packages, less than 3 min left"


def test_command_in_the_foreground_may_clean_up_after_an_interrupt() -> None:
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
