"""The janitor ends a comparison with everything that it has started."""

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


def test_session_is_killed_with_all_its_process_groups() -> None:
    leader = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with leader:
        assert leader.stdout is not None
        child = int(leader.stdout.readline())
        janitor.kill_session(leader.pid)
        leader.wait(WITHIN_S)
    deadline = time.monotonic() + WITHIN_S
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    janitor.kill_session(leader.pid)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
