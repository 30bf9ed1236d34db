"""The container runtime of a docker node, which pulls the images of pods and logs to a file.

Talos 1.13 starts it without waiting for the file that has the credentials of registries
(internal/app/machined/pkg/system/services/cri.go), and it reads that file only once. If it was
faster, it has no credentials until the node restarts.
"""

import io
import json
import tarfile
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from docker.errors import NotFound
from docker.models.containers import Container

LOG = "/var/log/cri.log"
WITHOUT_CREDENTIALS = "no basic auth credentials"
SIZE_LIMIT = 8 << 20


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
    entries = map(_entry, _log(container).splitlines())
    return [
        str(entry["error"])
        for entry in entries
        if "error" in entry and "time" in entry and _time(entry["time"]) >= started
    ]


def _log(container: Container) -> str:
    """The log; empty if there is none yet, or if it is too large."""
    try:
        chunks, stat = container.get_archive(LOG)
    except NotFound:
        return ""
    if stat is None or stat["size"] > SIZE_LIMIT:
        return ""
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        file = tar.extractfile(tar.next() or "")
        return file.read().decode(errors="replace") if file else ""


def _entry(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
