"""Runs a benchmark with a time limit, and lets it clean up after an interrupt."""

import os
import platform
import shutil
import signal
from collections.abc import Callable, Sequence
from types import FrameType

from toolchain.report import say

INTERRUPTED = 130


class CannotRunError(Exception):
    """This machine lacks something that a benchmark needs."""


def run(work: Callable[[], None], *, within_s: int) -> int:
    """Run work that can be interrupted and has a time limit.

    Both are exceptions, so the work's context managers clean up; further interrupts are ignored
    meanwhile.

    Args:
        work: the work.
        within_s: the time limit in seconds.

    Returns:
        the exit code: 0, 1 after an error, or 130 after an interrupt.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(within_s)
    try:
        work()
    except CannotRunError as error:
        say(f"error: {error}")
        return 1
    except TimeoutError as error:
        what = str(error) or f"not done within {within_s} s"
        say(f"error: {what}; everything that was created is removed")
        return 1
    except KeyboardInterrupt:
        say("interrupted; everything that was created is removed")
        return INTERRUPTED
    finally:
        signal.alarm(0)
    return 0


def need(tools: Sequence[str]) -> None:
    """Check the requirements for limiting a container's link.

    Raises:
        CannotRunError: the message lists everything that is missing.
    """
    missing = [f"{tool} on PATH" for tool in tools if not shutil.which(tool)]
    if platform.system() != "Linux":
        missing.append("Linux")
    elif os.geteuid() != 0:
        missing.append("root, to limit the link of a container")
    if missing:
        raise CannotRunError(f"this machine lacks: {'; '.join(missing)}")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    _ignore_interrupts()
    raise KeyboardInterrupt


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    _ignore_interrupts()
    raise TimeoutError


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.alarm(0)
