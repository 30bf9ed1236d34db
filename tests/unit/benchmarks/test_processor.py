import subprocess
import sys
import time

from benchmarks.support import processor


def test_the_time_of_running_processes_is_added_up() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        time.sleep(1)
        used = processor.used_s([spinning.pid])
        spinning.kill()

    assert 0.05 < used < 1.2
    assert processor.used_s([spinning.pid]) == 0
