"""Cleans up after a preview, however that ended; its arguments are PREFIX and FOLDER.

It is a process of its own, in a session of its own, so that it outlives a preview that is killed.
The preview tells it, line by line on its standard input, which processes it has started (`+PID`)
and which have ended (`-PID`). When that input ends, so has the preview: what still runs is killed,
and what bears the prefix on the engine, and the folder, are removed.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

STACK_LABEL = "talos-registry-cache.stack"
PASSES = 20
BETWEEN_PASSES_S = 0.5
ENGINE_ANSWERS_WITHIN_S = 60

# "being removed already", and of a network or volume, "in use" by a container that is on its way.
_CONFLICT = 409


def main(prefix: str, folder: Path) -> int:
    """Wait for the end of the preview, then clean up; 1 if something stayed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    kill_sessions(running(sys.stdin))
    left = sweep(prefix)
    shutil.rmtree(folder, ignore_errors=True)
    if left:
        sys.stderr.write(f"error: could not be removed: {', '.join(left)}\n")
    return 1 if left else 0


def running(lines: Iterable[str]) -> set[int]:
    """The processes that were started and have not ended, as the lines tell it."""
    found: set[int] = set()
    for line in lines:
        # A preview that is killed may leave half a line.
        if line.endswith("\n"):
            process = int(line[1:])
            (found.add if line[0] == "+" else found.discard)(process)
    return found


def kill_sessions(leaders: Iterable[int]) -> None:
    """Kill the sessions that processes lead: Pulumi, the program that it runs, and its plugins."""
    wanted = set(leaders)
    for leader in wanted:
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
    # Pulumi's plugins are in process groups of their own.
    for folder in Path("/proc").glob("[0-9]*") if wanted else ():
        with suppress(ProcessLookupError):
            if os.getsid(int(folder.name)) in wanted:
                os.kill(int(folder.name), signal.SIGKILL)


def sweep(prefix: str) -> list[str]:
    """Remove all that bears a prefix in its stack's name from the engine; the names of what stayed.

    More than once, since the engine ends what it was asked for after whoever asked has been killed.
    """
    with suppress(DockerException):
        engine = DockerClient.from_env(timeout=ENGINE_ANSWERS_WITHIN_S)
        try:
            clean_passes = 0
            for _ in range(PASSES):
                found = _belongings(engine, prefix)
                if not found and clean_passes:
                    return []
                clean_passes = 0 if found else clean_passes + 1
                for one in found:
                    _remove(one)
                time.sleep(BETWEEN_PASSES_S)
            return [str(one.name) for one in _belongings(engine, prefix)]
        finally:
            engine.close()
    # Without an engine there was nothing to make.
    return []


def _belongings(engine: DockerClient, prefix: str) -> list[Any]:
    """Containers, then networks, then volumes."""
    filters: dict[str, str | list[str] | bool] = {"label": STACK_LABEL}
    found = [
        *engine.containers.list(all=True, filters=filters, ignore_removed=True),
        *engine.networks.list(filters=filters),
        *engine.volumes.list(filters=filters),
    ]
    return [one for one in found if _labels(one).get(STACK_LABEL, "").startswith(prefix)]


def _labels(belonging: Any) -> dict[str, str]:
    if isinstance(belonging, Container):
        return belonging.labels
    return belonging.attrs.get("Labels") or {}


def _remove(belonging: Any) -> None:
    try:
        if isinstance(belonging, Container):
            belonging.remove(force=True, v=True)
        else:
            belonging.remove()
    except NotFound:
        return
    except APIError as error:
        if error.status_code != _CONFLICT:
            raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
