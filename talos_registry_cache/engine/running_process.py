"""Who made something on an engine that is to be gone with them: a process of a machine.

What it is called survives it: whoever finds the name later can tell whether the process is gone.
"""

import hashlib
import os
import platform
import socket
import subprocess
from functools import cache
from pathlib import Path

# Each process of Linux has its state and its start after the name in brackets (proc(5)).
STATE, START = 0, 19
DEAD = frozenset("ZX")


def own() -> str:
    """This process: its machine, its ID, and when it was started."""
    return _named(os.getpid())


def lives(owner: str) -> bool | None:
    """Whether a process goes on; None where that cannot be told.

    Args:
        owner: what `own` has called it. One of another machine, or of another container, cannot be
            looked for.
    """
    host, _, process = owner.partition(" ")
    number, _, started = process.partition(" ")
    if host != _host() or not number.isdecimal():
        return None
    now = _started(int(number))
    return None if now is None else now == started


@cache
def _named(process: int) -> str:
    return f"{_host()} {process} {_started(process)}"


@cache
def _host() -> str:
    """This machine, or the container that it is: where IDs of processes mean the same."""
    ids = [socket.gethostname(), *map(_read, ("/etc/machine-id",))]
    if (namespace := Path("/proc/self/ns/pid")).is_symlink():
        ids.append(str(namespace.readlink()))
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


def _started(process: int) -> str | None:
    """When a process was started; empty where there is none, None where that cannot be told."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        # It is another user's.
        pass
    return _started_on_linux(process) if platform.system() == "Linux" else _started_by_ps(process)


def _started_on_linux(process: int) -> str | None:
    # The boot counts too: after it, IDs and times begin anew.
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
