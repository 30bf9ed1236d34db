"""Logins of upstreams whose password is not in the stack file.

`up` gets them on the machine that runs Pulumi: from a command, or from a docker login.
"""

import shlex
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import pulumi
from docker import auth
from docker.errors import DockerException

from talos_registry_cache.errors import ReportedError
from talos_registry_cache.registry.catalogue import CATALOGUE

from . import dynamic_provider
from .registry_cache_args import ArgumentsError
from .settings.mistakes import Mistake, in_one_line
from .settings.upstream import Upstream

COMMAND_WITHIN_S = 60
LONGEST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and a password."""

    username: str
    password: str = field(repr=False)


class LoginError(ReportedError):
    """There is no login; the message has the reason, and no password."""


def of_upstreams(upstreams: Mapping[str, Upstream]) -> Mapping[str, pulumi.Output[Login]]:
    """The logins of upstreams, by registry host, as secrets; unknown in a preview.

    A preview runs no command: it may run where nobody is logged in, and a short-lived token would
    show as a change either way.

    Raises:
        ArgumentsError: some upstreams have no login; the message lists them all.
    """
    wanted: dict[str, tuple[str, Callable[[], Login]]] = {}
    for host, upstream in upstreams.items():
        if upstream.credentials is not None:
            wanted[host] = "credentials", partial(of_docker, login_host(host, upstream.remote_url))
        elif upstream.username is not None and upstream.password_command is not None:
            run = partial(of_command, upstream.username, upstream.password_command)
            wanted[host] = "passwordCommand", run
    if dynamic_provider.is_simulated():
        return {host: pulumi.Output.secret(Login("simulated", "simulated")) for host in wanted}
    if pulumi.runtime.is_dry_run():
        unknown = cast("Login", pulumi.output.UNKNOWN)
        return {host: pulumi.Output.secret(unknown) for host in wanted}
    found: dict[str, pulumi.Output[Login]] = {}
    mistakes: list[Mistake] = []
    with ThreadPoolExecutor() as pool:
        running = {host: pool.submit(get) for host, (_, get) in wanted.items()}
        for host, one in running.items():
            try:
                found[host] = pulumi.Output.secret(one.result())
            except LoginError as error:
                mistakes.append(Mistake(("upstreams", host, wanted[host][0]), str(error)))
    if mistakes:
        raise ArgumentsError(mistakes)
    return found


def of_command(username: str, command: list[str]) -> Login:
    """The login whose password is the first line that a command prints.

    Raises:
        LoginError: the command fails, takes too long or prints nothing.
    """
    shown = in_one_line(shlex.join(command))[:LONGEST_SHOWN]
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LoginError(f"{shown} has not ended after {COMMAND_WITHIN_S} s") from None
    except (OSError, ValueError) as error:
        raise LoginError(f"{shown} cannot be run: {error}") from None
    if ended.returncode != 0:
        # What it prints on standard output may be a password even then.
        said = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        reason = f": {in_one_line(said)[:LONGEST_SHOWN]}" if said else ""
        raise LoginError(f"{shown} ended with exit code {ended.returncode}{reason}")
    try:
        password = ended.stdout.decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise LoginError(f"{shown} printed something else than UTF-8 text") from None
    if not password:
        raise LoginError(f"the first line that {shown} printed is empty")
    return Login(username, password)


def login_host(host: str, remote_url: str) -> str:
    """The host under which `docker login` keeps the login of an upstream.

    Args:
        host: the registry host of the upstream.
        remote_url: its registry API, which for Docker Hub is at another host.
    """
    known = CATALOGUE.get(host)
    return host if known and known.remote_url == remote_url else urlsplit(remote_url).netloc


def of_docker(host: str) -> Login:
    """The login that `docker login` has stored for a registry, in its file or a credential helper.

    Raises:
        LoginError: there is none, or it is not a user name and a password.
    """
    try:
        # Files have keys in lower case, helpers in upper case.
        stored = auth.load_config().resolve_authconfig(host) or {}
        found = {key.lower(): value for key, value in stored.items()}
    except (DockerException, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = in_one_line(str(error))[:LONGEST_SHOWN]
        raise LoginError(f"the docker login of {host} cannot be read: {reason}") from None
    if found.get("identitytoken"):
        text = f"the docker login of {host} is an identity token, which caches cannot use"
        raise LoginError(f"{text}; allowed: a user name and a password")
    if not (found.get("username") and found.get("password")):
        raise LoginError(f"found no docker login of {host}; allowed: one from docker login {host}")
    return Login(found["username"], found["password"])
