"""Identifiers of processes, by which others can tell later whether a process still runs.

Temporary containers are labelled with the process that created them.
"""

import hashlib
import os
import platform
import socket
import subprocess
from functools import cache
from pathlib import Path

# Fields of /proc/PID/stat after the name in brackets (proc(5)).
STATE, START = 0, 19
DEAD = frozenset("ZX")


def own() -> str:
    """The identifier of this process: its machine, process ID and start time."""
    return _identifier(os.getpid())


def lives(identifier: str) -> bool | None:
    """Whether a process still runs; None if unknown.

    Args:
        identifier: the result of `own` in that process. The processes of other machines and of
            other containers cannot be seen.
    """
    host, _, process = identifier.partition(" ")
    number, _, started = process.partition(" ")
    if host != _host() or not number.isdecimal():
        return None
    now = _started(int(number))
    return None if now is None else now == started


def runs(process: int) -> bool:
    """Whether a process of this machine still runs; a zombie does not."""
    return _started(process) != ""


@cache
def _identifier(process: int) -> str:
    return f"{_host()} {process} {_started(process)}"


@cache
def _host() -> str:
    """Identifies this machine or container, within which process IDs are unique."""
    ids = [socket.gethostname(), _read("/etc/machine-id")]
    if (namespace := Path("/proc/self/ns/pid")).is_symlink():
        ids.append(str(namespace.readlink()))
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


def _started(process: int) -> str | None:
    """The start time of a process; empty if it has ended, None if unknown."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        # The process belongs to another user.
        pass
    return _started_on_linux(process) if platform.system() == "Linux" else _started_by_ps(process)


def _started_on_linux(process: int) -> str | None:
    # Process IDs and start times begin again with each boot.
    fields = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
    if not fields:
        return None
    return (
        ""
        if fields[STATE] in DEAD
        else f"{_read('/proc/sys/kernel/random/boot_id')}+{fields[START]}"
    )


def _started_by_ps(process: int) -> str | None:
    command = ["ps", "-o", "state=", "-o", "lstart=", "-p", str(process)]
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    state, _, started = said.stdout.strip().partition(" ")
    if not started:
        return None
    return "" if state[0] in DEAD else "-".join(started.split())


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
