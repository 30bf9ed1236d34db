"""The credential command of a cache: how the registry learns a user name and password.

A registry with such a command also starts while its upstream is away: without one it asks the
upstream for its authentication scheme first, and ends when there is no answer (distribution 3.1.2,
registry/proxy/proxyregistry.go). So every cache has one, be it for nobody.
"""

import json
import shlex

import pulumi
from pydantic import SecretStr

from .private_files import FOLDER, PrivateFile

FILE = "helper"
COMMAND = f"{FOLDER}/{FILE}"


def file(username: str | None = None, password: SecretStr | None = None) -> PrivateFile:
    """A docker-credential-helper that answers with these credentials whatever it is asked.

    Args:
        username: the user name, or None where the upstream is asked anonymously.
        password: the password.
    """
    secret = password.get_secret_value() if password else ""
    answer = json.dumps({"Username": username or "", "Secret": secret})
    script = f"#!/bin/sh\ncat >/dev/null\nprintf %s {shlex.quote(answer)}\n"
    return PrivateFile(pulumi.Output.secret(script) if secret else script, 0o555)
