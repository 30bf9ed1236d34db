"""One run of a benchmark: says what it does, ends in time, and cleans up whatever happens."""

import os
import platform
import shutil
import signal
from collections.abc import Callable, Sequence
from types import FrameType

from toolchain.report import say

INTERRUPTED = 130


class CannotRunError(Exception):
    """This machine lacks something; the message says what."""


def run(work: Callable[[], None], *, within_s: int) -> int:
    """Do some work that can be interrupted and is bounded in time.

    What it has made is to be removed by its context managers: an interrupt and the end of the time
    are exceptions, and further interrupts are put off until the work has ended.

    Args:
        work: what to do.
        within_s: how long it may take in seconds.

    Returns:
        The exit code: 0, 1 where it could not be done, or 130 where it was interrupted.
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
    except TimeoutError:
        say(f"error: not done within {within_s} s; all that was made is removed")
        return 1
    except KeyboardInterrupt:
        say("interrupted; all that was made is removed")
        return INTERRUPTED
    finally:
        signal.alarm(0)
    return 0


def need(tools: Sequence[str]) -> None:
    """Check that this machine has what it takes to shape a container's network.

    Raises:
        CannotRunError: it has not; the message lists all that is missing.
    """
    missing = [f"{tool} on PATH" for tool in tools if not shutil.which(tool)]
    if platform.system() != "Linux":
        missing.append("Linux")
    elif os.geteuid() != 0:
        missing.append("root, since the link of a container is shaped")
    if missing:
        raise CannotRunError(f"this machine lacks: {'; '.join(missing)}")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    _put_off_interrupts()
    raise KeyboardInterrupt


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    _put_off_interrupts()
    raise TimeoutError


def _put_off_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.alarm(0)
