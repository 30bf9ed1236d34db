"""What `pulumi destroy` leaves on the engine."""

from docker import DockerClient

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, docker_cli
from tests.integration.support.belongings import Belongings
from tests.integration.support.stack import upstreams
from tests.integration.support.upstream import IMAGE, Upstream

REGISTRY = "docker.io"


def test_destroy_with_keep_leaves_the_storage_which_the_next_up_adopts(
    new_stack: NewStack, upstream: Upstream
) -> None:
    image = upstream.push_index()
    stack = new_stack({"upstreams": upstreams(upstream.url, REGISTRY)})
    stack.up()
    endpoint = stack.outputs()["caches"][REGISTRY]["endpoint"]
    docker_cli.pull(endpoint, image)

    stack.destroy()

    storage = f"{stack.prefix}-{REGISTRY}"
    assert stack.belongings() == Belongings(frozenset(), frozenset(), frozenset({storage}))
    with upstream.away():
        stack.up()
        assert stack.outputs()["caches"][REGISTRY]["storage"] == storage
        assert docker_cli.pull(endpoint, image) == image.digest


def test_destroy_with_delete_leaves_the_image_alone(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    stack = new_stack(
        {"storage": {"onDestroy": "delete"}, "upstreams": upstreams(upstream.url, REGISTRY)}
    )
    stack.up()
    docker_cli.pull(stack.outputs()["caches"][REGISTRY]["endpoint"], upstream.push_index())
    mounted = {
        mount["Name"]
        for container in belongings.containers(engine, stack.name)
        for mount in belongings.mounts(container)
    }
    assert mounted > stack.belongings().volumes, "the image has a volume without a name"

    stack.destroy()

    assert stack.belongings() == belongings.NOTHING
    left = {volume.name for volume in engine.volumes.list()}
    assert mounted.isdisjoint(left)
    assert engine.images.get(IMAGE)


def test_keep_after_delete_counts_from_the_next_up_on(
    new_stack: NewStack, upstream: Upstream
) -> None:
    caches = {"storage": {"onDestroy": "delete"}, "upstreams": upstreams(upstream.url, REGISTRY)}
    stack = new_stack(caches)
    stack.up()
    stack.configure(caches | {"storage": {"onDestroy": "keep"}})
    stack.up()
    stack.destroy()
    assert stack.belongings().volumes == {f"{stack.prefix}-{REGISTRY}"}
