"""Which container engines are supported.

Only the standard library is imported, since the toolchain asks before any package is installed.
"""

import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

PODMAN = "Podman Engine"
SOCKETS = ("", "unix", "npipe")


def why_not_at(host: str) -> str:
    """Return why an engine cannot be used at an address, and what to do; empty if it can.

    Args:
        host: the address, as in DOCKER_HOST; empty for the default one.
    """
    url = urlsplit(host)
    if url.scheme in SOCKETS or (url.scheme != "ssh" and _is_this_machine(url.hostname or "")):
        return ""
    return (
        f"found the container engine {host}, which is on another machine; "
        "allowed: an engine of this machine. Run the command on the machine of the engine"
    )


def why_not(version: Mapping[str, Any]) -> str:
    """Return why an engine is not supported, and what to use instead; empty if it is.

    Args:
        version: the answer of the engine's API at `/version`.
    """
    for component in version.get("Components") or ():
        if component["Name"] == PODMAN:
            return (
                f"found Podman {component['Version']} as the container engine, which is not "
                "supported; allowed: Docker Engine 20.10 or later. Set DOCKER_HOST to its socket"
            )
    return ""


def is_rootless(info: Mapping[str, Any]) -> bool:
    """Return whether an engine runs without root.

    Args:
        info: the answer of the engine's API at `/info`.
    """
    options = info.get("SecurityOptions") or ()
    return any("name=rootless" in option.split(",") for option in options)


def _is_this_machine(name: str) -> bool:
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    # Some names are no names: a..b is a UnicodeError.
    except (OSError, UnicodeError):
        return False
    return any(_is_own(family, address) for family, _, _, _, address in found)


def _is_own(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(address)
        except OSError:
            return False
    return True
