"""Two checkouts have a stack of one name: neither takes what is the other's without being told."""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from docker import DockerClient
from pulumi.automation import CommandError

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, docker_cli, host
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
    with ExitStack() as made:
        yield made.enter_context(
            stack(tmp_path / "clone", engine, theirs.settings(), name=theirs.name)
        )


def test_what_another_checkout_made_is_refused_until_it_is_to_be_taken_over(
    theirs: CacheStack, ours: CacheStack, engine: DockerClient, upstream: Upstream
) -> None:
    image = upstream.push_index()
    endpoint = theirs.outputs()["caches"][REGISTRY]["endpoint"]
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


def test_network_that_was_taken_over_can_be_replaced(
    theirs: CacheStack, ours: CacheStack, engine: DockerClient
) -> None:
    ours.configure({**ours.settings(), "takeOverFrom": [_owner(theirs)]})
    ours.up()
    network = engine.networks.get(ours.prefix)
    network.disconnect(f"{ours.prefix}-{REGISTRY}", force=True)
    network.remove()
    assert ours.up().get("replace") == 2
    assert belongings.health(belongings.caches(engine, ours.name)[REGISTRY]) == "healthy"
    assert set(ours.up()) == {"same"}


def test_what_a_checkout_made_that_is_gone_is_taken_over(
    theirs: CacheStack, ours: CacheStack, engine: DockerClient, upstream: Upstream
) -> None:
    image = upstream.push_index()
    endpoint = theirs.outputs()["caches"][REGISTRY]["endpoint"]
    docker_cli.pull(endpoint, image)
    theirs_volumes = theirs.belongings().volumes
    shutil.rmtree(theirs.folder)

    printed = ours.pulumi("up", "--yes", "--skip-preview")

    assert f"taken over from {_owner(theirs)}, which is gone: " in printed
    assert ours.belongings().volumes == theirs_volumes
    assert set(ours.up()) == {"same"}
    assert set(belongings.caches(engine, ours.name)) == {REGISTRY}
    with upstream.away():
        assert docker_cli.pull(endpoint, image) == image.digest


def _refusal(run: Callable[[], object]) -> str:
    with pytest.raises(CommandError) as failure:
        run()
    message = str(failure.value)
    assert "Traceback" not in message
    return message


def _owner(stack: CacheStack) -> str:
    """The owner of what a stack has made, as the engine has it."""
    return f"file://{socket.gethostname()}{stack.state_folder}#organization/{PROJECT}"


def _ids(engine: DockerClient, stack: CacheStack) -> dict[str, str | None]:
    """The containers and the network of a stack."""
    networks = engine.networks.list(names=[f"^{stack.prefix}$"])
    containers = belongings.containers(engine, stack.name)
    return {
        **{str(one.name): one.id for one in containers},
        **{str(one.name): one.id for one in networks},
    }
