"""Network namespaces as machines, and a switch that joins them.

The switch has a namespace of its own, so no firewall rule of the machine's own engine is in the
way. `nsenter` and not `ip netns exec`, which hides the mounts of the control groups.
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
    """Make a network namespace, which has its loopback device; its name."""
    processes.run("ip", "netns", "add", name)
    try:
        processes.run("ip", "-netns", name, "link", "set", "lo", "up")
        yield name
    finally:
        processes.run("ip", "netns", "delete", name)


def enter(namespace: str) -> tuple[str, ...]:
    """What a command line begins with that runs in a namespace."""
    return "nsenter", f"--net=/run/netns/{namespace}"


def pids(namespace: str) -> set[int]:
    """The processes in a namespace and all that they have started, whatever namespace that is in.

    Dead ones that nobody has waited for are not among them.
    """
    children: defaultdict[int, set[int]] = defaultdict(set)
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name of a program, in parentheses, may have spaces in it.
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
    """What joins a namespace to the switch.

    Attributes:
        switch: the switch's namespace.
        port: the device there.
        namespace: the namespace that is joined; its device is eth0.
        address: its address.
    """

    switch: str
    port: str
    namespace: str
    address: str

    def cut(self) -> None:
        """Pull the cable out: nothing comes and goes, and nobody is told."""
        processes.run("ip", "-netns", self.switch, "link", "set", self.port, "down")

    def mend(self) -> None:
        """Put the cable back."""
        processes.run("ip", "-netns", self.switch, "link", "set", self.port, "up")

    def limit(self, mbit: int) -> None:
        """Limit what its namespace sends, in megabits a second."""
        processes.run(*enter(self.namespace), *limit_command(mbit))


def limit_command(mbit: int) -> tuple[str, ...]:
    """The command that limits what eth0 sends, of the network namespace that it is run in."""
    # A bucket smaller than what is sent between two ticks of the clock would slow it further.
    burst = max(64_000, mbit * 1000)
    rate = ("tbf", "rate", f"{mbit}mbit", "burst", str(burst), "latency", "400ms")
    return "tc", "qdisc", "replace", "dev", "eth0", "root", *rate


class Switch:
    """A switch, with which this machine has one link.

    Attributes:
        name: its namespace.
        address: this machine's address on it.
    """

    def __init__(self, name: str, subnet: str) -> None:
        self.name = name
        self._subnet = subnet
        self._numbers = iter(range(FIRST_NUMBER, 255))
        self.address = self._address(ROOTS_NUMBER)

    def join(self, namespace: str) -> Link:
        """Join a namespace to it, with an address that nobody else has.

        The link goes away with either namespace.
        """
        number = next(self._numbers)
        link = Link(self.name, f"port{number}", namespace, self._address(number))
        self._plug(link.port, "eth0", namespace)
        ip = ("ip", "-netns", namespace)
        processes.run(*ip, "address", "add", f"{link.address}/{PREFIX}", "dev", "eth0")
        processes.run(*ip, "link", "set", "eth0", "up")
        return link

    def join_this_machine(self) -> None:
        """Join the namespace of this process."""
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
    """Make a switch that joins this machine to it, and remove it with all of its links.

    Args:
        name: its namespace, and this machine's device of the link with it; both are made.
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
            # At once: with the namespace, it would go some time later.
            processes.finish(["ip", "link", "delete", name], within_s=10)


def free_subnet() -> str:
    """The three numbers that begin the addresses of a subnet in which this machine has none."""
    taken = {address.rpartition(".")[0] for address in host.addresses()}
    while (subnet := f"10.{200 + secrets.randbelow(55)}.{secrets.randbelow(255)}") in taken:
        pass
    return subnet


def why_impossible() -> str:
    """Why no such networks can be made here, or nothing."""
    name = f"it-{secrets.token_hex(4)}"
    try:
        with namespace(name):
            ip = ("ip", "-netns", name, "link", "add")
            processes.run(*ip, BRIDGE, "type", "bridge")
            processes.run(*ip, "veth0", "type", "veth", "peer", "name", "veth1")
            processes.run(*ip, "vx0", "type", "vxlan", "id", "7", "dstport", "4789")
    except processes.CommandFailedError as error:
        return f"a bed of hosts needs network namespaces with bridge, veth and vxlan: {error}"
    return ""
