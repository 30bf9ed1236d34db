"""Two stacks on one engine have nothing to do with each other."""

from concurrent.futures import ThreadPoolExecutor

from docker import DockerClient

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, docker_cli
from tests.integration.support.stack import CacheStack, upstreams
from tests.integration.support.upstream import Upstream

REGISTRY = "docker.io"


def test_two_stacks_converge_at_once_and_one_outlives_the_other(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    image = upstream.push_index()
    storage = {"onDestroy": "delete"}
    stacks = [
        new_stack({"storage": storage, "upstreams": upstreams(upstream.url, REGISTRY)})
        for _ in range(2)
    ]
    with ThreadPoolExecutor(len(stacks)) as threads:
        list(threads.map(CacheStack.up, stacks))
    gone, left = stacks
    for stack in stacks:
        endpoint = stack.outputs()["caches"][REGISTRY]["endpoint"]
        assert docker_cli.pull(endpoint, image) == image.digest
    before = left.belongings()
    assert before.containers.isdisjoint(gone.belongings().containers)

    gone.destroy()

    assert gone.belongings() == belongings.NOTHING
    assert left.belongings() == before
    with upstream.away():
        assert docker_cli.pull(endpoint, image) == image.digest
    assert set(belongings.caches(engine, left.name)) == {REGISTRY}
    assert set(left.up()) == {"same"}
