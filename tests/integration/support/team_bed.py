"""A test bed for a team: hosts in a Swarm, an object store and an upstream, on one machine.

    this machine ── switch ─┬─ host 1: an engine, node of the Swarm
      tests, upstream       ├─ host 2: an engine, node of the Swarm
                            └─ the object store

This machine has an address on the switch, so it and the hosts can reach each other.
"""

import functools
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
from docker import DockerClient

from tests.integration.support import network, object_store, private_engine, swarm
from tests.integration.support import upstream as upstream_registry
from tests.integration.support.network import Switch
from tests.integration.support.object_store import ObjectStore
from tests.integration.support.swarm import Host
from tests.integration.support.upstream import FRONT_IMAGE, IMAGE, Upstream

LABELS = {"cache": "true"}
QUORUM_FROM = 3
"""Number of managers from which a Swarm survives the loss of one."""


@dataclass(frozen=True, slots=True)
class Bed:
    """The infrastructure of a team's stack.

    Attributes:
        hosts: the nodes of the Swarm; the first one is a manager.
        store: the object store.
        upstream: a registry on this machine that the hosts can reach. Its fronts use the same
            address.
        switch: the switch that connects them; its `address` is this machine's.
    """

    hosts: Sequence[Host]
    store: ObjectStore
    upstream: Upstream
    switch: Switch
    _folder: Path
    _image: Path

    @property
    def manager(self) -> Host:
        """A manager of the Swarm."""
        return self.hosts[0]

    @contextmanager
    def more_host(self, *options: str) -> Iterator[Host]:
        """Run another host outside the Swarm: a workstation, or a new node.

        Args:
            options: more options of its dockerd.
        """
        name = f"{self.switch.name}-{secrets.token_hex(2)}"
        with swarm.host(self._folder / name, self.switch, name, options) as host:
            host.engine.start()
            host.engine.load(self._image)
            yield host


@contextmanager
def running(folder: Path, hosts: int = 2, managers: int | None = None) -> Iterator[Bed]:
    """Run a test bed, and remove it at the end.

    Args:
        folder: existing directory for its files.
        hosts: number of nodes. All have the registry image and the label `cache`.
        managers: number of managers. By default all, if they survive the loss of one, else one.
    """
    name = f"it-{secrets.token_hex(3)}"
    image = folder / "image.tar"
    with ExitStack() as made:
        made.callback(image.unlink, missing_ok=True)
        switch = made.enter_context(network.switch(name))
        names = [f"{name}-{number}" for number in range(1, hosts + 1)]
        nodes = [made.enter_context(swarm.host(folder / one, switch, one)) for one in names]
        stores = made.enter_context(network.namespace(f"{name}-s3"))
        store = made.enter_context(object_store.installed(folder / stores, switch.join(stores)))
        _at_once(
            *(node.engine.start for node in nodes),
            store.start,
            functools.partial(private_engine.save, image, IMAGE, FRONT_IMAGE),
        )
        if managers is None:
            managers = hosts if hosts >= QUORUM_FROM else 1
        _at_once(
            functools.partial(_form, nodes, managers),
            *(functools.partial(node.engine.load, image) for node in nodes),
        )
        engine = made.enter_context(_engine())
        upstream = made.enter_context(upstream_registry.running(engine, switch.address))
        yield Bed(nodes, store, upstream, switch, folder, image)


def _form(hosts: Sequence[Host], managers: int) -> None:
    swarm.form(hosts, managers)
    for host in hosts:
        swarm.label(hosts[0], host, LABELS)


def _at_once(*steps: Callable[[], None]) -> None:
    with ThreadPoolExecutor(len(steps)) as pool:
        for step in [pool.submit(step) for step in steps]:
            step.result()


@contextmanager
def _engine() -> Iterator[DockerClient]:
    client = docker.DockerClient(os.environ["DOCKER_HOST"], timeout=300)
    try:
        yield client
    finally:
        client.close()


@functools.cache
def why_impossible() -> str:
    """Why a test bed cannot run here; empty if it can."""
    return (
        private_engine.why_impossible() or network.why_impossible() or object_store.why_impossible()
    )
