"""How busy the processor of this machine is, and with whom, by the kernel's own count."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# In /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
IDLE = slice(3, 5)
COUNTED = slice(0, 8)
# In /proc/<pid>/stat behind the name: user and system time of all its threads.
USED = slice(11, 13)


@dataclass(frozen=True, slots=True)
class Spent:
    """Time that was spent since this machine was started, in seconds of one core.

    Attributes:
        at_s: when this was read.
        machine: by everybody.
        by: by groups of processes.
    """

    at_s: float
    machine: float
    by: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Busy:
    """How many cores were busy for a while, on average.

    Attributes:
        machine: with everybody.
        by: with groups of processes.
    """

    machine: float
    by: Mapping[str, float]

    @property
    def others(self) -> float:
        """With what belongs to no group, the kernel's own work for the network among it."""
        return max(0.0, self.machine - sum(self.by.values()))


def spent(groups: Mapping[str, Iterable[int]]) -> Spent:
    """Read what was spent until now.

    Args:
        groups: IDs of processes, by the name of their group.
    """
    by = {name: sum(map(_of_process, pids)) for name, pids in groups.items()}
    line = Path("/proc/stat").read_text().splitlines()[0]
    ticks = [int(word) for word in line.split()[1:]]
    return Spent(time.monotonic(), (sum(ticks[COUNTED]) - sum(ticks[IDLE])) / TICKS_PER_S, by)


def busy(before: Spent, after: Spent) -> Busy:
    """How busy the processor was in between."""
    seconds = after.at_s - before.at_s
    by = {name: max(0.0, value - before.by[name]) / seconds for name, value in after.by.items()}
    return Busy((after.machine - before.machine) / seconds, by)


def _of_process(pid: int) -> float:
    try:
        # The name of a program, in parentheses, may have spaces in it.
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, words[USED])) / TICKS_PER_S
