"""What CI runs, and what it ends with."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.documents import ROOT

# A `make` that notes down its targets, and fails at some of them with a code of each one's own.
MAKE = """\
#!/bin/sh
echo "$1" >> "{log}"
case "$1" in {failures} *) exit 0;; esac
"""


@pytest.mark.parametrize(
    ("failures", "done", "code"),
    [
        ({}, ["check", "up", "test", "engine-test", "down"], 0),
        ({"check": 2}, ["check"], 2),
        ({"up": 3}, ["check", "up", "down"], 3),
        ({"test": 4}, ["check", "up", "test", "down"], 4),
        ({"test": 4, "down": 5}, ["check", "up", "test", "down"], 4),
        ({"down": 5}, ["check", "up", "test", "engine-test", "down"], 1),
        ({"engine-test": 6}, ["check", "up", "test", "engine-test", "down"], 6),
    ],
)
def test_ci_takes_the_stack_down_and_ends_with_the_first_failure(
    tmp_path: Path, failures: dict[str, int], done: list[str], code: int
) -> None:
    log = tmp_path / "log"
    make = tmp_path / "make"
    cases = " ".join(f"{target}) exit {failed};;" for target, failed in failures.items())
    make.write_text(MAKE.format(log=log, failures=cases))
    make.chmod(0o755)

    ended = subprocess.run(
        [ROOT / ".ci" / "run"],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        check=False,
    )

    assert ended.returncode == code
    assert log.read_text().split() == done
