"""Ports of this machine: which are free, and what uses the others."""

import platform
import socket
from contextlib import suppress
from pathlib import Path

from docker import DockerClient

LISTENING = "0A"
CONNECT_WITHIN_S = 1
MACOS = "Darwin"
AIRPLAY_PORTS = (5000, 7000)
PROCESS = "a process of this machine"
AIRPLAY = (
    f"{PROCESS}, probably AirPlay Receiver "
    "(turn it off in System Settings > General > AirDrop & Handoff)"
)


def can_bind(address: str, port: int) -> bool:
    """Whether a TCP port can be opened on an IPv4 address of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A connection that was closed a moment ago does not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    # macOS lets a socket share the port of one that is bound to all addresses, such as AirPlay's.
    return not (platform.system() == MACOS and port and _accepts(address, port))


def is_own_address(address: str) -> bool:
    """Whether an IPv4 address belongs to this machine."""
    return can_bind(address, 0)


def user_of(port: int, client: DockerClient) -> str:
    """What uses a port: `the container <name>`, or a process of this machine."""
    # A container that is starting has its port before it counts as running.
    for container in client.containers.list(all=True, filters={"publish": str(port)}):
        return f"the container {container.name}"
    sockets = _listening(port)
    for container in client.containers.list() if sockets else ():
        # On the host network, nothing is published and the process itself listens.
        if container.attrs["HostConfig"]["NetworkMode"] == "host":
            processes = container.top(ps_args="-eo pid")["Processes"]
            if any(_open_sockets(process) & sockets for (process,) in processes):
                return f"the container {container.name}"
    return AIRPLAY if platform.system() == MACOS and port in AIRPLAY_PORTS else PROCESS


def _accepts(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), CONNECT_WITHIN_S).close()
    except OSError:
        return False
    return True


def _listening(port: int) -> set[str]:
    """The sockets that listen on a port, as /proc names them; empty where there is no /proc."""
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == LISTENING and int(local.rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{inode}]")
    return found


def _open_sockets(process: str) -> set[str]:
    """The open files of a process, as far as this user may see them."""
    found = set()
    with suppress(OSError):
        for file in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                found.add(str(file.readlink()))
    return found
