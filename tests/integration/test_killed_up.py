"""A `pulumi up` that was killed is finished by the next one, wherever it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from docker import DockerClient

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, docker_cli, host, sessions
from tests.integration.support.belongings import Belongings
from tests.integration.support.polling import eventually
from tests.integration.support.stack import CacheStack, upstreams
from tests.integration.support.upstream import Upstream

REGISTRIES = ("docker.io", "quay.io", "registry.example")
REACHED_WITHIN_S = 60

Reached = Callable[[DockerClient, CacheStack], bool]

# What of the stack is on the engine at the moment of the kill.
MOMENTS: dict[str, Reached] = {
    "first volume": lambda _, stack: bool(stack.belongings().volumes),
    "network": lambda _, stack: bool(stack.belongings().networks),
    "first container": lambda _, stack: bool(stack.belongings().containers),
    "first cache": lambda engine, stack: bool(belongings.caches(engine, stack.name)),
    "all caches": lambda engine, stack: (
        set(belongings.caches(engine, stack.name)) == set(REGISTRIES)
    ),
}


@contextmanager
def _killed_when(reached: Callable[[], bool], stack: CacheStack, output: Path) -> Iterator[None]:
    """Start `pulumi up`, kill it at a moment, and take its lock away.

    The provider is not killed with it: it ends what it has begun, and idles until it notices,
    minutes later. So it is for anyone who kills the command.
    """
    up = stack.start_up(output)
    try:
        eventually(
            lambda: reached() or up.poll() is not None,
            within_s=REACHED_WITHIN_S,
            what="the moment to kill",
            every_s=0,
        )
        assert up.poll() is None, f"it ended too early:\n{output.read_text()}"
        sessions.kill_group(up.pid)
        up.wait()
        stack.mend()
        stack.cancel()
        yield
    finally:
        sessions.kill_group(up.pid)
        sessions.kill_rest(up.pid)
        up.wait()


@pytest.mark.parametrize("moment", MOMENTS)
def test_first_up_that_was_killed_is_finished_by_the_next(
    moment: str,
    new_stack: NewStack,
    tmp_path: Path,
    engine: DockerClient,
    upstream: Upstream,
) -> None:
    image = upstream.push_index()
    stack = new_stack({"upstreams": upstreams(upstream.url, *REGISTRIES)})
    with _killed_when(lambda: MOMENTS[moment](engine, stack), stack, tmp_path / "killed.log"):
        stack.up()

    _assert_complete(stack, engine)
    for cache in stack.outputs()["caches"].values():
        assert docker_cli.pull(cache["endpoint"], image) == image.digest
    assert set(stack.up()) == {"same"}


def test_replacement_that_was_killed_is_finished_with_what_was_cached(
    new_stack: NewStack, tmp_path: Path, engine: DockerClient, upstream: Upstream
) -> None:
    image = upstream.push_index()
    caches = {"upstreams": upstreams(upstream.url, *REGISTRIES)}
    stack = new_stack(caches)
    stack.up()
    registry = REGISTRIES[0]
    docker_cli.pull(stack.outputs()["caches"][registry]["endpoint"], image)
    caches["upstreams"][registry]["port"] = host.free_port()
    stack.configure(caches)
    replaced = f"{stack.prefix}-{registry}"

    def is_half_done() -> bool:
        return replaced not in stack.belongings().containers

    with _killed_when(is_half_done, stack, tmp_path / "killed.log"), upstream.away():
        stack.up()
        endpoint = stack.outputs()["caches"][registry]["endpoint"]
        assert docker_cli.pull(endpoint, image) == image.digest
    _assert_complete(stack, engine)
    assert set(stack.up()) == {"same"}


def _assert_complete(stack: CacheStack, engine: DockerClient) -> None:
    names = frozenset(f"{stack.prefix}-{name}" for name in (*REGISTRIES, "anonymous"))
    assert stack.belongings() == Belongings(names, frozenset({stack.prefix}), names)
    caches = belongings.caches(engine, stack.name).items()
    assert {registry: belongings.health(cache) for registry, cache in caches} == dict.fromkeys(
        REGISTRIES, "healthy"
    )
