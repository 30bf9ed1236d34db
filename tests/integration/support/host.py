"""Free ports and addresses of this machine."""

import itertools
import json
import os
import platform
import re
import socket
from collections.abc import Iterator
from ipaddress import IPv4Network

from docker import DockerClient

from tests.integration.support import processes

FIRST_PORT = 20_000
PORTS_OF_A_WORKER = 1_000
WORKERS = 12

LOOPBACK = "127.0.0.1"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This machine's architecture, in the notation of images."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def other_architecture() -> str:
    """An architecture that this machine does not have."""
    return next(name for name in ARCHITECTURES.values() if name != architecture())


def bridge_gateway(engine: DockerClient) -> str:
    """The address of this machine on the engine's default bridge."""
    (config,) = (
        config
        for config in engine.api.inspect_network("bridge")["IPAM"]["Config"]
        if ":" not in config["Subnet"]
    )
    # Engine 20.10 reports no gateway. It is the first address of the subnet.
    return str(config.get("Gateway") or next(IPv4Network(config["Subnet"]).hosts()))


def addresses() -> set[str]:
    """All IPv4 addresses of this machine."""
    links = json.loads(processes.run("ip", "-json", "-4", "address", "show"))
    return {address["local"] for link in links for address in link["addr_info"]}


def free_port() -> int:
    """A port that is free on all addresses and not given to another worker of this run."""
    return next(_free_ports)


def accepts(address: str, port: int) -> bool:
    """Whether something listens on an address and port."""
    try:
        with socket.create_connection((address, port), timeout=2):
            return True
    except OSError:
        return False


def _search() -> Iterator[int]:
    worker = re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or "0"
    first = FIRST_PORT + int(worker) % WORKERS * PORTS_OF_A_WORKER
    # Below the ephemeral ports of the kernel, so that none is taken meanwhile. The search starts at
    # an offset, because another test run may be active on this machine.
    start = os.getpid() * 37 % PORTS_OF_A_WORKER
    for offset in itertools.count(start):
        port = first + offset % PORTS_OF_A_WORKER
        if _is_free(port):
            yield port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


_free_ports = _search()
