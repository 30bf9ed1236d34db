"""What `pulumi destroy` leaves on the engine, also for another stack beside it."""

from concurrent.futures import ThreadPoolExecutor

from docker import DockerClient

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, docker_cli
from tests.integration.support.belongings import Belongings
from tests.integration.support.stack import CacheStack, upstreams
from tests.integration.support.upstream import IMAGE, Upstream

REGISTRY = "docker.io"


def test_destroy_deletes_or_keeps_the_storage_as_set_and_leaves_other_stacks_alone(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    image = upstream.push_index()
    caches = [
        {"storage": {"onDestroy": "delete"}, "upstreams": upstreams(upstream.url, REGISTRY)}
        for _ in range(2)
    ]
    gone, left = stacks = [new_stack(settings) for settings in caches]
    with ThreadPoolExecutor(len(stacks)) as threads:
        list(threads.map(CacheStack.up, stacks))
    for stack in stacks:
        assert docker_cli.pull(stack.endpoint(REGISTRY), image) == image.digest
    before = left.belongings()
    mounted = {
        mount["Name"]
        for container in belongings.containers(engine, gone.name)
        for mount in belongings.mounts(container)
    }
    assert mounted > gone.belongings().volumes, "the image has a volume without a name"

    gone.destroy()

    assert gone.belongings() == belongings.NOTHING
    assert mounted.isdisjoint({volume.name for volume in engine.volumes.list()})
    assert engine.images.get(IMAGE)
    assert left.belongings() == before
    assert set(left.up()) == {"same"}
    endpoint, storage = left.endpoint(REGISTRY), f"{left.prefix}-{REGISTRY}"

    left.configure({**caches[1], "storage": {"onDestroy": "keep"}})
    left.up()
    left.destroy()

    assert left.belongings() == Belongings(frozenset(), frozenset(), frozenset({storage}))
    with upstream.away():
        left.up()
        assert left.outputs()["caches"][REGISTRY]["storage"] == storage
        assert docker_cli.pull(endpoint, image) == image.digest
