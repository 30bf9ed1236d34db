"""Hosts with one engine each, and a Docker Swarm of them."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.support import network, private_engine
from tests.integration.support.network import Link, Switch
from tests.integration.support.private_engine import PrivateEngine

SWARM_PORT = 2377
# A busy machine must not look like a lost node, which it does after three missed heartbeats.
HEARTBEAT_NS = 30 * 10**9


@dataclass(frozen=True, slots=True)
class Host:
    """A host with an engine.

    Attributes:
        name: its host name.
        engine: its engine.
        link: its network link.
    """

    name: str
    engine: PrivateEngine
    link: Link

    @property
    def address(self) -> str:
        """Its address for the other hosts and this machine."""
        return self.link.address

    def lose(self) -> None:
        """Simulate a power failure: the engine and its containers die, and nothing answers."""
        self.link.cut()
        self.engine.crash()

    def back(self) -> None:
        """Restore the link and start the engine again."""
        self.link.mend()
        self.engine.start()


@contextmanager
def host(folder: Path, switch: Switch, name: str, options: Sequence[str] = ()) -> Iterator[Host]:
    """Prepare a host without starting its engine, and remove it at the end.

    Args:
        folder: directory of its engine's files; is created.
        switch: the switch that connects it.
        name: host name, and name of its network namespace.
        options: more options of dockerd.
    """
    folder.mkdir()
    with (
        network.namespace(name),
        private_engine.installed(folder, name, options) as engine,
    ):
        yield Host(name, engine, switch.join(name))


def form(hosts: Sequence[Host], managers: int) -> None:
    """Create a Swarm of hosts with running engines.

    Args:
        hosts: its nodes; the first one initializes the Swarm.
        managers: number of managers, starting with the first host.
    """
    first, *others = hosts
    with first.engine.client() as client:
        client.swarm.init(
            advertise_addr=first.address,
            listen_addr=_listens(first),
            dispatcher_heartbeat_period=HEARTBEAT_NS,
        )
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
    """Set the labels of a node."""
    with manager.engine.client() as client:
        (node,) = client.nodes.list(filters={"name": host.name})
        node.update({**node.attrs["Spec"], "Labels": dict(labels)})


def _listens(host: Host) -> str:
    return f"{host.address}:{SWARM_PORT}"
