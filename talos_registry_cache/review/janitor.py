"""Runs a comparison and cleans up after it, however the preview ends: `janitor PREFIX FOLDER`.

It has a session of its own, so that it outlives a preview that is killed. A line on standard input
starts the comparison; the end of standard input means that the preview has ended, and stops it.
Then everything on the engine with the prefix is removed, and the folder.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from talos_registry_cache.engine import labels, running_process

COMPARED_WITHIN_S = 3600
POLL_S = 0.2
PASSES = 20
BETWEEN_PASSES_S = 0.5
# A busy engine may take more than a second to complete a request of a process that was killed.
CLEAN_PASSES = 5
ENGINE_ANSWERS_WITHIN_S = 60

# The engine answers so while it is removing a container, and for the networks and volumes it uses.
_CONFLICT = 409


def main(prefix: str, folder: Path) -> int:
    """Run the comparison, and clean up.

    Returns:
        The exit code of the comparison, or 1 if something could not be removed.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    code = _compare(folder) if sys.stdin.readline() else 1
    try:
        left = sweep(prefix)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if left:
        sys.stderr.write(f"error: could not be removed: {', '.join(left)}\n")
    return 1 if left else code


def _compare(folder: Path) -> int:
    process = subprocess.Popen(
        [sys.executable, "-m", "talos_registry_cache.review.comparison", str(folder)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + COMPARED_WITHIN_S
    while process.poll() is None:
        if select.select([sys.stdin], [], [], POLL_S)[0]:
            break
        if time.monotonic() > deadline:
            sys.stderr.write(f"error: the preview took more than {COMPARED_WITHIN_S} s\n")
            break
    kill_session(process.pid)
    return process.wait()


def kill_session(leader: int) -> None:
    """Kill all processes of a session: the leader, Pulumi, its programs and plugins."""
    # macOS answers EPERM for a group whose processes have all ended.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    # Pulumi's plugins are in process groups of their own, and may be starting now.
    while members := _members(leader):
        for process in members:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(POLL_S)


def _members(session: int) -> list[int]:
    processes = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return [one for one in processes if _session(one) == session and running_process.runs(one)]


def _session(process: int) -> int:
    try:
        return os.getsid(process)
    except ProcessLookupError:
        return 0


def sweep(prefix: str) -> list[str]:
    """Remove everything from the engine whose stack has a prefix.

    It takes several passes, since the engine completes requests of processes that were killed.

    Returns:
        The names of the objects that could not be removed.
    """
    try:
        client = DockerClient.from_env(timeout=ENGINE_ANSWERS_WITHIN_S)
    except DockerException:
        # Without an engine, nothing was created.
        return []
    with closing(client) as engine:
        found = _belongings(engine, prefix)
        clean_passes = 0
        for _ in range(PASSES):
            clean_passes = 0 if found else clean_passes + 1
            if clean_passes == CLEAN_PASSES:
                break
            for one in found:
                _remove(one)
            time.sleep(BETWEEN_PASSES_S)
            found = _belongings(engine, prefix)
        return [str(one.name) for one in found]


def _belongings(engine: DockerClient, prefix: str) -> list[Any]:
    """Return containers, then networks, then volumes: the order in which they can be removed."""
    filters: dict[str, str | list[str] | bool] = {"label": labels.STACK}
    found = [
        *engine.containers.list(all=True, filters=filters, ignore_removed=True),
        *engine.networks.list(filters=filters),
        *engine.volumes.list(filters=filters),
    ]
    return [one for one in found if _labels(one).get(labels.STACK, "").startswith(prefix)]


def _labels(belonging: Any) -> dict[str, str]:
    if isinstance(belonging, Container):
        return belonging.labels
    return belonging.attrs.get("Labels") or {}


def _remove(belonging: Any) -> None:
    options = {"force": True, "v": True} if isinstance(belonging, Container) else {}
    with suppress(NotFound):
        try:
            belonging.remove(**options)
        except APIError as error:
            if error.status_code != _CONFLICT:
                raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
