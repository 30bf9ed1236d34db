"""The container runtime of a docker node, which pulls the images of pods and logs to a file.

Talos 1.13 starts it without waiting for the file that has the credentials of registries
(internal/app/machined/pkg/system/services/cri.go), and it reads that file only once. If it was
faster, it has no credentials until the node restarts.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from docker.models.containers import Container

from talos_registry_cache.talos import docker_nodes

LOG = "/var/log/cri.log"
WITHOUT_CREDENTIALS = "no basic auth credentials"


def lacks_credentials(errors: Iterable[str]) -> bool:
    """Whether a mirror has refused the runtime of a node for lack of credentials.

    The runtime then asks the registry itself, so a failed pull may have another reason.

    Args:
        errors: the errors of the runtime.
    """
    return any(error.endswith(WITHOUT_CREDENTIALS) for error in errors)


def errors(container: Container) -> list[str]:
    """The errors that the runtime of a node has logged since the node was started.

    Raises:
        docker.errors.DockerException: the engine does not answer.
    """
    started = _time(container.attrs["State"]["StartedAt"])
    entries = map(_entry, docker_nodes.read_text(container, LOG).splitlines())
    return [
        str(entry["error"])
        for entry in entries
        if "error" in entry and "time" in entry and _time(entry["time"]) >= started
    ]


def _entry(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
