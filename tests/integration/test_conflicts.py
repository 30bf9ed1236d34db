"""Ports and names that others use are reported, and block only the caches that need them."""

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from docker import DockerClient
from docker.models.containers import Container
from pulumi.automation import CommandError

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, docker_cli, host
from tests.integration.support.polling import eventually
from tests.integration.support.stack import CacheStack, upstreams
from tests.integration.support.upstream import IMAGE, Upstream

PROCESS, CONTAINER, HOST_NETWORK, NAME, FREE = REGISTRIES = (
    "docker.io",
    "quay.io",
    "ghcr.io",
    "gcr.io",
    "registry.example",
)


@contextmanager
def _stranger(
    engine: DockerClient, name: str, port: int | None = None, *, host_network: bool = False
) -> Iterator[Container]:
    """A container that belongs to no stack."""
    listens = [f"REGISTRY_HTTP_ADDR={host.LOOPBACK}:{port}", "REGISTRY_HTTP_DEBUG_ADDR="]
    container = engine.containers.create(
        IMAGE,
        name=name,
        ports={"5000/tcp": (host.LOOPBACK, port)} if port and not host_network else {},
        network_mode="host" if host_network else None,
        environment=listens if host_network else [],
    )
    try:
        container.start()
        if port:
            eventually(lambda: host.accepts(host.LOOPBACK, port), within_s=30, what="it listens")
        yield container
    finally:
        container.remove(force=True, v=True)


def _failed_up(stack: CacheStack) -> str:
    with pytest.raises(CommandError) as failure:
        stack.up()
    message = str(failure.value)
    assert "Traceback" not in message
    return message


def test_used_ports_and_a_used_container_name_block_only_their_caches_until_they_are_free(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    image = upstream.push_index()
    settings = upstreams(upstream.url, *REGISTRIES)
    ports = {registry: upstream["port"] for registry, upstream in settings.items()}
    stack = new_stack({"upstreams": settings})
    published, direct = (f"it-stranger-{secrets.token_hex(4)}" for _ in range(2))
    named = f"{stack.prefix}-{NAME}"
    with (
        socket.create_server((host.LOOPBACK, ports[PROCESS])),
        _stranger(engine, published, ports[CONTAINER]),
        _stranger(engine, direct, ports[HOST_NETWORK], host_network=True),
        _stranger(engine, named) as stranger,
    ):
        message = _failed_up(stack)
        stranger.reload()
        assert stranger.status == "running"

    for registry, owner in (
        (PROCESS, "a process of this machine"),
        (CONTAINER, f"the container {published}"),
        (HOST_NETWORK, f"the container {direct}"),
    ):
        assert f"port {ports[registry]} on {host.LOOPBACK} is taken by {owner}" in message
        assert registry in message
    assert f"the container name {named} is taken" in message
    assert stack.healthy() == {FREE}

    stack.up()

    assert stack.healthy() == set(REGISTRIES)
    for registry in REGISTRIES:
        assert docker_cli.pull(stack.endpoint(registry), image) == image.digest
    assert set(stack.up()) == {"same"}


def test_a_used_network_name_is_reported_and_the_network_is_left_alone(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    stack = new_stack({"upstreams": upstreams(upstream.url, FREE)})
    network = engine.networks.create(stack.prefix, driver="bridge")
    try:
        assert f"the network name {stack.prefix} is taken" in _failed_up(stack)
        assert [found.id for found in engine.networks.list(names=[stack.prefix])] == [network.id]
    finally:
        # First the containers that the failed run has connected.
        belongings.remove(engine, stack.name)
        network.remove()
