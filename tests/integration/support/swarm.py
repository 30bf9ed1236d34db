"""Hosts with an engine each, and Docker's swarm of them."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.support import network, private_engine
from tests.integration.support.network import Link, Switch
from tests.integration.support.private_engine import PrivateEngine

SWARM_PORT = 2377


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with an engine.

    Attributes:
        name: its host name.
        engine: its engine.
        link: its network cable.
    """

    name: str
    engine: PrivateEngine
    link: Link

    @property
    def address(self) -> str:
        """Where the other hosts and this machine reach it."""
        return self.link.address

    def lose(self) -> None:
        """Let it lose its power: its engine and its containers are gone, and nothing answers."""
        self.link.cut()
        self.engine.crash()

    def back(self) -> None:
        """Give it its power again."""
        self.link.mend()
        self.engine.start()


@contextmanager
def host(folder: Path, switch: Switch, name: str, options: Sequence[str] = ()) -> Iterator[Host]:
    """Prepare a host, whose engine is not started, and remove all of it at the end.

    Args:
        folder: where its engine keeps its files; it is made.
        switch: what it is joined to.
        name: its name, and that of its network namespace.
        options: more options of dockerd.
    """
    folder.mkdir()
    with (
        network.namespace(name),
        private_engine.installed(folder, name, options) as engine,
    ):
        yield Host(name, engine, switch.join(name))


def form(hosts: Sequence[Host], managers: int) -> None:
    """Make a swarm of hosts whose engines run.

    Args:
        hosts: its nodes; the first one makes the swarm.
        managers: how many of them, from the first one on, are its managers.
    """
    first, *others = hosts
    with first.engine.client() as client:
        client.swarm.init(advertise_addr=first.address, listen_addr=_listens(first))
        tokens = client.swarm.attrs["JoinTokens"]

    def join(number: int, host: Host) -> None:
        with host.engine.client() as client:
            client.swarm.join(
                remote_addrs=[_listens(first)],
                join_token=tokens["Manager" if number < managers else "Worker"],
                advertise_addr=host.address,
                listen_addr=_listens(host),
            )

    with ThreadPoolExecutor() as pool:
        list(pool.map(join, range(1, len(hosts)), others))


def label(manager: Host, host: Host, labels: Mapping[str, str]) -> None:
    """Give a node these labels, and no others."""
    with manager.engine.client() as client:
        (node,) = client.nodes.list(filters={"name": host.name})
        node.update({**node.attrs["Spec"], "Labels": dict(labels)})


def _listens(host: Host) -> str:
    return f"{host.address}:{SWARM_PORT}"
