import os
import subprocess
import sys
import time

from benchmarks.support import processor
from benchmarks.support.processor import Busy, Spent

SPIN = "while True: pass"


def test_the_cores_that_a_process_had_busy_are_told_by_its_group() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN]) as spinning:
        groups = {"spinning": [spinning.pid], "nobody": []}
        before = processor.spent(groups)
        time.sleep(1)
        found = processor.busy(before, processor.spent(groups))
        spinning.kill()

    assert found.by["nobody"] == 0
    assert 0.05 < found.by["spinning"] < 1.1
    assert found.by["spinning"] - 0.1 < found.machine < (os.cpu_count() or 1) + 0.1


def test_a_process_that_has_ended_counts_no_more() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()

    assert processor.spent({"ended": [ended.pid]}).by == {"ended": 0}


def test_busy_is_what_was_spent_by_the_time_in_between() -> None:
    before = Spent(10.0, 100.0, {"caches": 4.0, "gone": 3.0})
    after = Spent(14.0, 106.0, {"caches": 6.0, "gone": 0.0})

    found = processor.busy(before, after)

    assert found == Busy(1.5, {"caches": 0.5, "gone": 0.0})
    assert found.others == 1.0
