"""What is somebody else's is named, left alone, and in the way of nothing but what needs it."""

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

BLOCKED, OTHER, THIRD = REGISTRIES = ("docker.io", "quay.io", "registry.example")


@contextmanager
def _stranger(engine: DockerClient, name: str, port: int | None = None) -> Iterator[Container]:
    """A container that belongs to no stack."""
    ports = {} if port is None else {"5000/tcp": (host.LOOPBACK, port)}
    container = engine.containers.create(IMAGE, name=name, ports=ports)
    try:
        container.start()
        yield container
    finally:
        container.remove(force=True, v=True)


def _failed_up(stack: CacheStack) -> str:
    with pytest.raises(CommandError) as failure:
        stack.up()
    message = str(failure.value)
    assert "Traceback" not in message
    return message


def _healthy(engine: DockerClient, stack: CacheStack) -> set[str]:
    caches = belongings.caches(engine, stack.name).items()
    return {registry for registry, cache in caches if belongings.health(cache) == "healthy"}


def test_port_taken_by_a_process_is_named_and_blocks_its_cache_alone(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    image = upstream.push_index()
    settings = {"upstreams": upstreams(upstream.url, *REGISTRIES)}
    port = settings["upstreams"][BLOCKED]["port"]
    stack = new_stack(settings)
    with socket.create_server((host.LOOPBACK, port)):
        message = _failed_up(stack)
    assert f"port {port} on {host.LOOPBACK} is taken by a process of this machine" in message
    assert BLOCKED in message
    assert _healthy(engine, stack) == {OTHER, THIRD}

    stack.up()  # the port is free by now

    assert _healthy(engine, stack) == set(REGISTRIES)
    for cache in stack.outputs()["caches"].values():
        assert docker_cli.pull(cache["endpoint"], image) == image.digest
    assert set(stack.up()) == {"same"}


def test_port_taken_by_a_container_is_named_with_it(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    settings = {"upstreams": upstreams(upstream.url, BLOCKED, OTHER)}
    port = settings["upstreams"][BLOCKED]["port"]
    stack = new_stack(settings)
    name = f"it-stranger-{secrets.token_hex(4)}"
    with _stranger(engine, name, port):
        message = _failed_up(stack)
        assert f"port {port} on {host.LOOPBACK} is taken by the container {name}" in message
        assert _healthy(engine, stack) == {OTHER}


def test_port_taken_by_a_container_on_the_machines_own_network_is_named_with_it(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    settings = {"upstreams": upstreams(upstream.url, BLOCKED)}
    port = settings["upstreams"][BLOCKED]["port"]
    stack = new_stack(settings)
    name = f"it-stranger-{secrets.token_hex(4)}"
    listens = [f"REGISTRY_HTTP_ADDR={host.LOOPBACK}:{port}", "REGISTRY_HTTP_DEBUG_ADDR="]
    stranger = engine.containers.run(
        IMAGE, name=name, environment=listens, network_mode="host", detach=True
    )
    try:
        eventually(lambda: host.accepts(host.LOOPBACK, port), within_s=30, what="it listens")
        assert f"port {port} on {host.LOOPBACK} is taken by the container {name}" in (
            _failed_up(stack)
        )
    finally:
        stranger.remove(force=True, v=True)


def test_name_taken_by_a_strangers_container_is_an_error_that_it_survives(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    stack = new_stack({"upstreams": upstreams(upstream.url, BLOCKED, OTHER)})
    name = f"{stack.prefix}-{BLOCKED}"
    with _stranger(engine, name) as stranger:
        message = _failed_up(stack)
        assert f"the container name {name} is taken" in message
        stranger.reload()
        assert stranger.status == "running"
        assert _healthy(engine, stack) == {OTHER}
    stack.up()
    assert _healthy(engine, stack) == {BLOCKED, OTHER}


def test_name_taken_by_a_strangers_network_is_an_error_that_it_survives(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    stack = new_stack({"upstreams": upstreams(upstream.url, BLOCKED)})
    network = engine.networks.create(stack.prefix, driver="bridge")
    try:
        assert f"the network name {stack.prefix} is taken" in _failed_up(stack)
        assert [found.id for found in engine.networks.list(names=[stack.prefix])] == [network.id]
    finally:
        # Whatever the failed run has put into it goes first.
        belongings.remove(engine, stack.name)
        network.remove()
