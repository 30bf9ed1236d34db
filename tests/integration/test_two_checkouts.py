"""Two checkouts with stacks of the same name: neither takes over resources without permission."""

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient
from pulumi.automation import CommandError

from tests.integration.conftest import NewStack
from tests.integration.support import docker_cli, host
from tests.integration.support.stack import PROJECT, CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream

REGISTRY = "docker.io"


@pytest.fixture
def theirs(new_stack: NewStack, upstream: Upstream) -> CacheStack:
    """The stack of one checkout, up."""
    made = new_stack({"publishOn": [host.LOOPBACK], "upstreams": upstreams(upstream.url, REGISTRY)})
    made.up()
    return made


@pytest.fixture
def ours(theirs: CacheStack, tmp_path: Path, engine: DockerClient) -> Iterator[CacheStack]:
    """The stack of the same file in another checkout, not up."""
    with stack(tmp_path / "clone", engine, theirs.settings(), name=theirs.name) as made:
        yield made


def test_resources_of_another_checkout_are_taken_over_only_with_permission(
    theirs: CacheStack, ours: CacheStack, engine: DockerClient, upstream: Upstream
) -> None:
    image, endpoint = upstream.push_index(), theirs.endpoint(REGISTRY)
    docker_cli.pull(endpoint, image)
    before = _ids(engine, theirs)

    for touch in (ours.preview, ours.up):
        message = _refusal(touch)
        assert f"{_owner(theirs)}: container {ours.prefix}-anonymous, " in message
        assert f"network {ours.prefix}" in message
        assert f"caches.takeOverFrom: [{_owner(theirs)}]" in message
    assert _ids(engine, theirs) == before

    ours.configure({**ours.settings(), "takeOverFrom": [_owner(theirs)]})
    ours.up()

    assert _ids(engine, ours).keys() == before.keys()
    assert not set(_ids(engine, ours).values()) & set(before.values())
    with upstream.away():
        assert docker_cli.pull(endpoint, image) == image.digest
    ours.configure({key: ours.settings()[key] for key in ("publishOn", "upstreams")})
    assert set(ours.up()) == {"same"}
    assert f"{_owner(ours)}: container " in _refusal(theirs.up)

    # A network that was taken over can be replaced.
    network = engine.networks.get(ours.prefix)
    for container in (f"{ours.prefix}-{REGISTRY}", f"{ours.prefix}-{REGISTRY}-registry"):
        network.disconnect(container, force=True)
    network.remove()
    assert ours.up().get("replace") == 3
    assert ours.healthy() == {REGISTRY}
    assert set(ours.up()) == {"same"}


def test_resources_of_a_deleted_checkout_are_taken_over(
    theirs: CacheStack, ours: CacheStack, upstream: Upstream
) -> None:
    image, endpoint = upstream.push_index(), theirs.endpoint(REGISTRY)
    docker_cli.pull(endpoint, image)
    volumes = theirs.belongings().volumes
    shutil.rmtree(theirs.folder)

    printed = ours.pulumi("up", "--yes", "--skip-preview")

    assert f"taken over from {_owner(theirs)}, which is gone: " in printed
    assert ours.belongings().volumes == volumes
    assert set(ours.up()) == {"same"}
    assert ours.healthy() == {REGISTRY}
    with upstream.away():
        assert docker_cli.pull(endpoint, image) == image.digest


def _refusal(run: Callable[[], object]) -> str:
    with pytest.raises(CommandError) as failure:
        run()
    message = str(failure.value)
    assert "Traceback" not in message
    return message


def _owner(stack: CacheStack) -> str:
    """The owner of the resources of a stack, as in their labels."""
    return f"file://{socket.gethostname()}{stack.state_folder}#organization/{PROJECT}"


def _ids(engine: DockerClient, stack: CacheStack) -> dict[str, str | None]:
    """The IDs of the containers and the network of a stack, by name."""
    networks = engine.networks.list(names=[f"^{stack.prefix}$"])
    return stack.ids() | {str(one.name): one.id for one in networks}
