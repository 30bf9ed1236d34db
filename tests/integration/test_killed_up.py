"""A `pulumi up` that was killed is finished by the next one, wherever it was."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL

import pytest
from docker import DockerClient

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, docker_cli, happenings, host, sessions
from tests.integration.support.belongings import Belongings
from tests.integration.support.happenings import Happening
from tests.integration.support.stack import CacheStack, upstreams
from tests.integration.support.upstream import Upstream

REGISTRIES = ("docker.io", "quay.io", "registry.example")

# What has happened to things of the stack at the moment of the kill, and to how many.
MOMENTS = {
    "first volume": ("volume", "create", 1),
    "network": ("network", "create", 1),
    "first container": ("container", "create", 1),
    "first cache": ("container", "start", 1),
    "all caches": ("container", "start", len(REGISTRIES)),
}


@contextmanager
def _killed_at(
    is_it: Callable[[Happening], bool], count: int, stack: CacheStack, output: Path
) -> Iterator[None]:
    """Start `pulumi up`, kill it as soon as something has happened so often, and take its lock.

    The provider is not killed with it: it ends what it has begun, and idles until it notices,
    minutes later. So it is for anyone who kills the command.
    """
    since = time.time()
    up = stack.start_up(output)
    try:
        with happenings.until_it_ends(up, since) as happening:
            seen = 0
            for one in happening:
                seen += is_it(one)
                if seen == count:
                    break
            sessions.kill_group(up.pid)
        assert up.wait() == -SIGKILL, f"it ended too early:\n{output.read_text()}"
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
    kind, action, count = MOMENTS[moment]

    def is_it(one: Happening) -> bool:
        return (one.kind, one.action) == (kind, action) and one.name.startswith(stack.prefix)

    with _killed_at(is_it, count, stack, tmp_path / "killed.log"):
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

    def is_removed(one: Happening) -> bool:
        return one == Happening("container", "destroy", replaced)

    with _killed_at(is_removed, 1, stack, tmp_path / "killed.log"), upstream.away():
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
