"""The process of its own in which `apart` runs the work of a provider."""

import io
import os
import pickle
import signal
import stat
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from .apart import CancelledError


def main(descriptor: int) -> None:
    """Receive the work from the other end of a connection, do it, and send what came of it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    theirs = Connection(descriptor)
    work, arguments = theirs.recv()
    sys.stdout = _Relay(theirs)
    threading.Thread(target=_interrupt_when_told, args=(theirs,), daemon=True).start()
    outcome: tuple[Any, Exception | None]
    try:
        outcome = work(*arguments), None
    except KeyboardInterrupt:
        outcome = None, CancelledError("it was interrupted, and can be run again")
    except Exception as error:  # noqa: BLE001 - raised again by `run`
        outcome = None, _portable(error)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    with suppress(OSError):
        theirs.send(outcome)


def _interrupt_when_told(theirs: Connection) -> None:
    """Interrupt the main thread when the provider says so or has ended, or Pulumi has ended.

    Pulumi holds the other end of the standard input of its plugins.
    """
    pulumi = [0] if stat.S_ISFIFO(os.fstat(0).st_mode) else []
    connection.wait([theirs, *pulumi])
    os.kill(os.getpid(), signal.SIGINT)


def _portable(error: Exception) -> Exception:
    """An error with its traceback, in a form that can be sent."""
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - its own
    except Exception:  # noqa: BLE001 - any constructor may fail
        return RuntimeError(traceback.format_exc())
    return error


class _Relay(io.StringIO):
    """Sends what is printed when it is flushed."""

    def __init__(self, theirs: Connection) -> None:
        super().__init__()
        self._theirs = theirs

    def flush(self) -> None:
        if printed := self.getvalue():
            self.seek(0)
            self.truncate()
            # A provider that was killed prints nothing any more.
            with suppress(OSError):
                self._theirs.send(printed)


if __name__ == "__main__":
    main(int(sys.argv[1]))
