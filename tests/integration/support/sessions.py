"""The processes of a session, and how to kill them."""

import os
import signal
from contextlib import suppress
from pathlib import Path

SESSION_FIELD = 3  # counted from the field after the command name


def members(session: int) -> list[int]:
    """The processes of a session, without zombies."""
    return [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if _state_and_session(folder) == (True, session)
    ]


def kill_group(session: int) -> None:
    """Kill the leading process group of a session, as a closed terminal or the OOM killer may."""
    with suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)


def kill_rest(session: int) -> None:
    """Kill the other processes of a session, in any process group."""
    for process in members(session):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _state_and_session(folder: Path) -> tuple[bool, int]:
    try:
        stat = (folder / "stat").read_text()
    except OSError:
        return False, 0
    state, *rest = stat.rpartition(")")[2].split()
    return state != "Z", int(rest[SESSION_FIELD - 1])
