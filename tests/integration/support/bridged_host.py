"""A host behind its own bridge, as talosctl creates virtual machines."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.integration.support import network, processes
from tests.integration.support.network import PREFIX


@contextmanager
def running() -> Iterator[Sequence[str]]:
    """Create the host.

    Yields:
        The command prefix that runs a command on the host.
    """
    name = secrets.token_hex(4)
    namespace, bridge, outer = f"it-{name}", f"itb{name}", f"itv{name}"
    subnet = network.free_subnet()
    gateway, address = f"{subnet}.1", f"{subnet}.2"
    _ip("netns", "add", namespace)
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{gateway}/{PREFIX}", "dev", bridge)
        _ip("link", "set", bridge, "up")
        _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", outer, "master", bridge, "up")
        _ip("-netns", namespace, "address", "add", f"{address}/{PREFIX}", "dev", "eth0")
        _ip("-netns", namespace, "link", "set", "eth0", "up")
        _ip("-netns", namespace, "route", "add", "default", "via", gateway)
        yield "ip", "netns", "exec", namespace
    finally:
        processes.finish(["ip", "link", "delete", bridge], within_s=10)
        _ip("netns", "delete", namespace)


def _ip(*arguments: str) -> None:
    processes.run("ip", *arguments)
