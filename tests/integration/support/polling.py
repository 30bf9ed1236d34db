"""Waiting for something to become true, no longer than a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

EVERY_S = 0.05


def eventually(
    check: Callable[[], T], *, within_s: float, what: str, every_s: float = EVERY_S
) -> T:
    """Ask again and again until the answer is true, and return it.

    Raises:
        TimeoutError: the answer was not true in time.
    """
    deadline = time.monotonic() + within_s
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s} s: {what}")
        time.sleep(every_s)
    return answer
