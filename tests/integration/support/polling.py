"""Waiting for something to become true, no longer than a deadline."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

EVERY_S = 0.05
PATIENCE = 5
"""How much longer a machine that is busy with something else may take than an idle one."""


def eventually(
    check: Callable[[], T], *, within_s: float, what: str, every_s: float = EVERY_S
) -> T:
    """Ask again and again until the answer is true, and return it.

    Args:
        check: asks.
        within_s: how long that may take on an idle machine; on a busy one, PATIENCE times that.
        what: what is waited for.
        every_s: seconds between two questions.

    Raises:
        TimeoutError: the answer was not true in time.
    """
    deadline = time.monotonic() + PATIENCE * within_s
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE * within_s} s: {what}")
        time.sleep(every_s)
    return answer


def under_load(within_s: float) -> float:
    """A time limit in seconds, adapted to the load of the machine."""
    return within_s * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
