"""The processor time that processes have used."""

import os
from collections.abc import Iterable
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# In /proc/<pid>/stat behind the name: user and system time of all threads.
USED = slice(11, 13)


def used_s(pids: Iterable[int]) -> float:
    """Seconds of one core that running processes have used; those that ended count as 0."""
    return sum(map(_ticks, pids)) / TICKS_PER_S


def _ticks(pid: int) -> int:
    try:
        # The name, in parentheses, may contain spaces.
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(map(int, words[USED]))
