"""The credential command of a cache, from which the registry gets user name and password.

Every cache has one, even for an anonymous upstream. Without it, a registry asks its upstream for
the authentication scheme when it starts, and exits if there is no answer (distribution 3.1.2,
registry/proxy/proxyregistry.go).
"""

import json
import shlex

import pulumi

from .logins import Login
from .private_files import FOLDER, PrivateFile

FILE = "helper"
COMMAND = f"{FOLDER}/{FILE}"
MODE = 0o555


def anonymous() -> PrivateFile:
    """A docker-credential-helper that answers without credentials."""
    return PrivateFile(_script("", ""), MODE)


def file(login: pulumi.Output[Login]) -> PrivateFile:
    """A docker-credential-helper that answers every request with a login."""
    return PrivateFile(login.apply(lambda known: _script(known.username, known.password)), MODE)


def _script(username: str, password: str) -> str:
    answer = json.dumps({"Username": username, "Secret": password})
    return f"#!/bin/sh\ncat >/dev/null\nprintf %s {shlex.quote(answer)}\n"
