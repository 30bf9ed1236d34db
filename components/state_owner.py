"""The owner of a stack's resources on the engine: where Pulumi keeps the stack's state.

It is the URL of the backend, with organization and project as its fragment. For a backend in files,
the URL names the machine as well: `file://laptop/home/me/caches/.state#…`.
"""

import json
import os
import socket
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

import pulumi

CLOUD = "https://api.pulumi.com"
FILE = "file"


def of_this_program() -> str:
    """The owner of the running program's resources."""
    within = f"{pulumi.get_organization()}/{pulumi.get_project()}"
    url = urlsplit(_backend())
    if url.scheme == FILE:
        return f"{FILE}://{socket.gethostname()}{quote(str(_folder(url)))}#{within}"
    # Without user, password and parameters, which may be secret.
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}#{within}"


def is_same(one: str, other: str) -> bool:
    """Whether two owners are the same.

    Engine and users are on the same machine, so another host name only means that the machine was
    renamed.
    """
    first, second = urlsplit(one), urlsplit(other)
    if first.scheme == second.scheme == FILE:
        return first[2:] == second[2:]
    return one == other


def is_gone(owner: str) -> bool:
    """Whether the state was in files of this machine, and its folder no longer exists."""
    url = urlsplit(owner)
    is_here = url.scheme == FILE and url.netloc == socket.gethostname()
    return is_here and not Path(unquote(url.path)).exists()


def _backend() -> str:
    return os.environ.get("PULUMI_BACKEND_URL") or _logged_in_to() or CLOUD


def _logged_in_to() -> str | None:
    """The backend of the last `pulumi login`."""
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    try:
        current = json.loads((home / "credentials.json").read_bytes())["current"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return current if isinstance(current, str) and current else None


def _folder(url: SplitResult) -> Path:
    # Pulumi accepts `file://~` and `file://./state` as well.
    return Path(unquote(f"{url.netloc}{url.path}")).expanduser().resolve()
