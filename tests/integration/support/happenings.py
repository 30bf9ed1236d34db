"""Events of the engine while a process runs."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

KINDS = ("container", "network", "volume")


@dataclass(frozen=True, slots=True)
class Happening:
    """An event of the engine.

    Attributes:
        kind: the type of the resource: container, network or volume.
        action: the action, such as `create`.
        name: name of the resource.
    """

    kind: str
    action: str
    name: str


@contextmanager
def until_it_ends(
    process: "subprocess.Popen[bytes]", since: float
) -> Iterator[Iterator[Happening]]:
    """Stream the events of the engine until a process has ended.

    Args:
        process: the process.
        since: start of the events, in seconds since 1970. Must be before the start of the process,
            so that no event is missed.
    """
    kinds = (f"--filter=type={kind}" for kind in KINDS)
    line = ["docker", "events", "--format={{json .}}", f"--since={since:.3f}", *kinds]
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as events:

        def close() -> None:
            process.wait()
            events.terminate()

        threading.Thread(target=close, daemon=True).start()
        try:
            assert events.stdout is not None
            yield (_read(json.loads(event)) for event in events.stdout)
        finally:
            events.terminate()


def _read(event: dict[str, Any]) -> Happening:
    actor = event["Actor"]
    return Happening(event["Type"], event["Action"], actor["Attributes"].get("name", actor["ID"]))
