"""Runs the work of a dynamic provider in a process of its own, which Ctrl-C interrupts.

The methods of a provider run in threads, which cannot be interrupted, and Pulumi kills the provider
5 s after a second Ctrl-C. This process gets a KeyboardInterrupt in its main thread when Pulumi
cancels its run or has ended, and has all the time that it needs to clean up.
See docs/decisions/0032-work-that-ctrl-c-interrupts.md.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any, TypeVar

from talos_registry_cache.errors import ReportedError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Result = TypeVar("Result")

_running: "set[Connection]" = set()
_cancelled = threading.Event()


class CancelledError(ReportedError):
    """The work was interrupted."""


def run(work: Callable[..., Result], *arguments: object) -> Result:
    """Run a function in a process of its own, and return its result.

    What it prints is printed here. If Pulumi cancels its run or ends, the function is interrupted
    by KeyboardInterrupt.

    Args:
        work: a function of a module, which can be imported there.
        arguments: its arguments, which can be pickled, as its result.

    Raises:
        CancelledError: it was interrupted.
        Exception: whatever it raised.
    """
    ours, theirs = Pipe()
    with (
        ours,
        subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.apart_process", str(theirs.fileno())],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        ),
    ):
        theirs.close()
        ours.send((work, arguments))
        with _interruptible(ours):
            result: Result = _outcome(ours)
    return result


def cancel() -> None:
    """Interrupt all work, now and later, because Pulumi cancels its run."""
    _cancelled.set()
    for one in tuple(_running):
        _interrupt(one)


def _interrupt(ours: "Connection") -> None:
    with suppress(OSError):
        ours.send("interrupt")


@contextmanager
def _interruptible(ours: "Connection") -> Iterator[None]:
    _running.add(ours)
    try:
        if _cancelled.is_set():
            _interrupt(ours)
        yield
    finally:
        _running.discard(ours)


def _outcome(ours: "Connection") -> Any:
    while True:
        try:
            received = ours.recv()
        except (EOFError, ConnectionError):
            raise CancelledError("its process was killed; the next run cleans up") from None
        if not isinstance(received, str):
            break
        print(received, end="", flush=True)  # noqa: T201 - Pulumi shows it
    result, error = received
    if error is not None:
        raise error
    return result
