"""The janitor knows what still runs, and kills it with all that it has started."""

import subprocess
import sys
import time
from pathlib import Path

from talos_registry_cache.review import janitor

WITHIN_S = 50

# Like Pulumi with its plugins: a child in a process group of its own.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "60"], process_group=0)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_processes_that_were_started_and_have_not_ended_still_run() -> None:
    assert janitor.running(["+1\n", "+2\n", "-1\n", "+3\n", "-3\n"]) == {2}


def test_half_a_line_of_a_preview_that_was_killed_is_left_alone() -> None:
    assert janitor.running(["+1\n", "+23"]) == {1}


def test_session_is_killed_with_other_process_groups_in_it() -> None:
    leader = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with leader:
        assert leader.stdout is not None
        child = int(leader.stdout.readline())
        janitor.kill_sessions([leader.pid])
        leader.wait(WITHIN_S)
    deadline = time.monotonic() + WITHIN_S
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nothing_to_kill_kills_nothing() -> None:
    janitor.kill_sessions([])


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
