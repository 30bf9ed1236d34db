"""The next `pulumi up` completes one that was killed at any moment."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, docker_cli, happenings, host, sessions
from tests.integration.support.happenings import Happening
from tests.integration.support.stack import CacheStack, upstreams
from tests.integration.support.upstream import Upstream

REGISTRIES = ("docker.io", "quay.io", "registry.example")

# The event of the stack's resources at which `up` is killed, and how many of them must occur.
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
    """Start `pulumi up`, kill it at the given number of matching events, and clear its lock.

    The provider survives, as for users who kill the command: it completes its operation, and exits
    minutes later.
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
        assert up.wait() == -SIGKILL, f"it ended before it was killed:\n{output.read_text()}"
        stack.mend()
        stack.cancel()
        yield
    finally:
        sessions.kill_group(up.pid)
        sessions.kill_rest(up.pid)
        up.wait()


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_next_up_completes_a_first_one_that_was_killed(
    moment: str,
    new_stack: NewStack,
    tmp_path: Path,
    upstream: Upstream,
) -> None:
    image = upstream.push_index()
    stack = new_stack({"upstreams": upstreams(upstream.url, *REGISTRIES)})
    kind, action, count = MOMENTS[moment]

    def is_it(one: Happening) -> bool:
        return (one.kind, one.action) == (kind, action) and one.name.startswith(stack.prefix)

    with _killed_at(is_it, count, stack, tmp_path / "killed.log"):
        stack.up()

    _assert_complete(stack)
    for cache in stack.outputs()["caches"].values():
        assert docker_cli.pull(cache["endpoint"], image) == image.digest
    assert set(stack.up()) == {"same"}


def test_the_next_up_completes_a_killed_replacement_and_keeps_the_content(
    new_stack: NewStack, tmp_path: Path, upstream: Upstream
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
    _assert_complete(stack)
    assert set(stack.up()) == {"same"}


def _assert_complete(stack: CacheStack) -> None:
    assert stack.belongings() == belongings.expected(stack.prefix, *REGISTRIES)
    assert stack.healthy() == set(REGISTRIES)
