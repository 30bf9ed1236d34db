"""Network namespaces that act as machines, connected by a switch.

The switch has its own namespace, so the firewall rules of this machine's engine do not apply.
Commands enter with `nsenter`, because `ip netns exec` hides the mounts of the cgroups.
"""

import os
import secrets
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.support import host, processes

BRIDGE = "br0"
PREFIX = 24
ROOTS_NUMBER = 1
FIRST_NUMBER = 11


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """Create a network namespace with a loopback device, and yield its name."""
    processes.run("ip", "netns", "add", name)
    try:
        processes.run("ip", "-netns", name, "link", "set", "lo", "up")
        yield name
    finally:
        processes.run("ip", "netns", "delete", name)


def enter(namespace: str) -> tuple[str, ...]:
    """The command prefix that enters a namespace."""
    return "nsenter", f"--net=/run/netns/{namespace}"


def pids(namespace: str) -> set[int]:
    """The processes in a namespace, and their descendants in any namespace.

    Zombies are left out.
    """
    children: defaultdict[int, set[int]] = defaultdict(set)
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The program name, in parentheses, may contain spaces.
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            children[int(parent)].add(int(status.parent.name))
    found: set[int] = set()
    level = set(map(int, processes.run("ip", "netns", "pids", namespace).split()))
    while level:
        found |= level
        level = set().union(*(children[pid] for pid in level)) - found
    return found


@dataclass(frozen=True, slots=True)
class Link:
    """The link between a namespace and the switch.

    Attributes:
        switch: namespace of the switch.
        port: device of the switch.
        namespace: the connected namespace; its device is eth0.
        address: address of that namespace.
    """

    switch: str
    port: str
    namespace: str
    address: str

    def cut(self) -> None:
        """Cut the link: packets are dropped silently."""
        processes.run("ip", "-netns", self.switch, "link", "set", self.port, "down")

    def mend(self) -> None:
        """Restore the link."""
        processes.run("ip", "-netns", self.switch, "link", "set", self.port, "up")

    def limit(self, mbit: int) -> None:
        """Limit the outgoing traffic of the namespace, in megabits per second."""
        processes.run(*enter(self.namespace), *limit_command(mbit))


def limit_command(mbit: int) -> tuple[str, ...]:
    """The command that limits the outgoing traffic of eth0, in the namespace where it runs."""
    # A smaller bucket than the traffic of one clock tick would lower the rate further.
    burst = max(64_000, mbit * 1000)
    rate = ("tbf", "rate", f"{mbit}mbit", "burst", str(burst), "latency", "400ms")
    return "tc", "qdisc", "replace", "dev", "eth0", "root", *rate


class Switch:
    """A switch with a link to this machine.

    Attributes:
        name: namespace of the switch.
        address: address of this machine on the switch.
    """

    def __init__(self, name: str, subnet: str) -> None:
        self.name = name
        self._subnet = subnet
        self._numbers = iter(range(FIRST_NUMBER, 255))
        self.address = self._address(ROOTS_NUMBER)

    def join(self, namespace: str) -> Link:
        """Connect a namespace to the switch, with a new address.

        The link is removed with either namespace.
        """
        number = next(self._numbers)
        link = Link(self.name, f"port{number}", namespace, self._address(number))
        self._plug(link.port, "eth0", namespace)
        ip = ("ip", "-netns", namespace)
        processes.run(*ip, "address", "add", f"{link.address}/{PREFIX}", "dev", "eth0")
        processes.run(*ip, "link", "set", "eth0", "up")
        return link

    def join_this_machine(self) -> None:
        """Connect the namespace of this process."""
        self._plug(f"port{ROOTS_NUMBER}", self.name, str(os.getpid()))
        processes.run("ip", "address", "add", f"{self.address}/{PREFIX}", "dev", self.name)
        processes.run("ip", "link", "set", self.name, "up")

    def _plug(self, port: str, device: str, namespace: str) -> None:
        ip = ("ip", "-netns", self.name, "link")
        peer = ("peer", "name", device, "netns", namespace)
        processes.run(*ip, "add", port, "type", "veth", *peer)
        processes.run(*ip, "set", port, "master", BRIDGE, "up")

    def _address(self, number: int) -> str:
        return f"{self._subnet}.{number}"


@contextmanager
def switch(name: str) -> Iterator[Switch]:
    """Create a switch with a link to this machine, and remove it with all links at the end.

    Args:
        name: name of the namespace and of this machine's device; both are created.
    """
    with namespace(name):
        made = Switch(name, free_subnet())
        ip = ("ip", "-netns", name, "link")
        processes.run(*ip, "add", BRIDGE, "type", "bridge")
        processes.run(*ip, "set", BRIDGE, "up")
        try:
            made.join_this_machine()
            yield made
        finally:
            # Now: with the namespace, it would be removed some time later.
            processes.finish(["ip", "link", "delete", name], within_s=10)


def free_subnet() -> str:
    """The first three numbers of a /24 subnet in which this machine has no address."""
    taken = {address.rpartition(".")[0] for address in host.addresses()}
    while (subnet := f"10.{200 + secrets.randbelow(55)}.{secrets.randbelow(255)}") in taken:
        pass
    return subnet


def why_impossible() -> str:
    """Why such networks cannot be created here; empty if they can."""
    name = f"it-{secrets.token_hex(4)}"
    try:
        with namespace(name):
            ip = ("ip", "-netns", name, "link", "add")
            processes.run(*ip, BRIDGE, "type", "bridge")
            processes.run(*ip, "veth0", "type", "veth", "peer", "name", "veth1")
            processes.run(*ip, "vx0", "type", "vxlan", "id", "7", "dstport", "4789")
    except processes.CommandFailedError as error:
        return f"a test bed needs network namespaces with bridge, veth and vxlan: {error}"
    return ""
