"""Wait for a condition, up to a deadline."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

EVERY_S = 0.05
PATIENCE = 5
"""Factor by which a busy machine may be slower than an idle one."""


def eventually(
    check: Callable[[], T], *, within_s: float, what: str, every_s: float = EVERY_S
) -> T:
    """Call a check until its result is true, and return the result.

    Args:
        check: the check.
        within_s: time limit on an idle machine; a busy one gets PATIENCE times as long.
        what: name of the condition, for the error.
        every_s: seconds between two calls.

    Raises:
        TimeoutError: the result was not true in time.
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
