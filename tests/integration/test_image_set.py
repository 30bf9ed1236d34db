"""Images that are in the caches before any node asks for them."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from docker import DockerClient
from pulumi.automation import CommandError

from tests.integration.conftest import NewStack
from tests.integration.support import docker_cli, host, images
from tests.integration.support.front import Front, guarding
from tests.integration.support.stack import CacheStack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

REGISTRY, OTHER = REGISTRIES = ("docker.io", "registry.example")
NOT_THERE = f"{REGISTRY}/team/not-there:1"
# Of a network for documentation, which leads nowhere: connections are neither made nor refused.
SWALLOWING = "http://192.0.2.1"
AT_ONCE = timedelta(seconds=1)


@pytest.fixture
def front(upstream: Upstream) -> Iterator[Front]:
    """The upstream, with a count of what it serves."""
    with guarding(upstream, "none") as counting:
        yield counting


def _references(*pushed: Pushed, registry: str = REGISTRY) -> list[str]:
    return [f"{registry}/{image.name}" for image in pushed]


def _with_images(new_stack: NewStack, front: Front, references: list[str]) -> CacheStack:
    stack = new_stack({"upstreams": upstreams(front.url, *REGISTRIES)})
    stack.configure({"references": references}, "images")
    return stack


def _endpoint(stack: CacheStack, registry: str = REGISTRY) -> str:
    return str(stack.outputs()["caches"][registry]["endpoint"])


def test_images_of_the_set_are_served_with_the_upstream_away(
    new_stack: NewStack, front: Front, upstream: Upstream
) -> None:
    first, second = upstream.push_index(), upstream.push_docker_image()
    references = [*_references(first), *_references(second, registry=OTHER)]
    stack = _with_images(new_stack, front, references)

    stack.up()

    assert stack.outputs()["images"] == dict(
        zip(references, [first.digest, second.digest], strict=True)
    )
    with upstream.away():
        assert docker_cli.pull(_endpoint(stack), first) == first.digest
        assert docker_cli.pull(_endpoint(stack, OTHER), second) == second.digest
    assert set(stack.up()) == {"same"}


def test_each_blob_is_fetched_once_however_many_images_share_it(
    new_stack: NewStack, front: Front, upstream: Upstream
) -> None:
    index = images.oci_index(host.architecture())
    shared = [upstream.push(index) for _ in range(3)]
    stack = _with_images(new_stack, front, _references(*shared))

    stack.up()

    served = Counter(front.blobs_served())
    assert set(served) == {blob.digest for blob in images.blobs_of(index)}
    assert set(served.values()) == {1}
    with upstream.away():
        for image in shared:
            assert docker_cli.pull(_endpoint(stack), image) == image.digest
    assert Counter(front.blobs_served()) == served


def test_an_image_that_is_added_is_all_that_is_fetched(
    new_stack: NewStack, front: Front, upstream: Upstream
) -> None:
    first, second = upstream.push_index(), upstream.push_index()
    stack = _with_images(new_stack, front, _references(first))
    stack.up()
    before = front.blobs_served()

    stack.configure({"references": _references(first, second)}, "images")
    assert stack.preview().get("update") == 1
    stack.up()

    added = front.blobs_served()[len(before) :]
    assert added
    assert set(before).isdisjoint(added)
    with upstream.away():
        assert docker_cli.pull(_endpoint(stack), second) == second.digest


def test_an_image_that_fails_is_named_and_the_others_are_kept(
    new_stack: NewStack, front: Front, upstream: Upstream
) -> None:
    good = upstream.push_index()
    stack = _with_images(new_stack, front, [*_references(good), NOT_THERE])

    with pytest.raises(CommandError) as failure:
        stack.up()

    message = str(failure.value)
    assert "1 of 2 images are not cached; 1 are, and stay" in message
    assert NOT_THERE in message
    assert "Traceback" not in message
    fetched = front.blobs_served()
    stack.configure({"references": _references(good)}, "images")
    stack.up()
    assert front.blobs_served() == fetched
    with upstream.away():
        assert docker_cli.pull(_endpoint(stack), good) == good.digest


def test_what_a_cache_has_lost_is_found_by_refresh_and_healed_by_up(
    new_stack: NewStack, front: Front, upstream: Upstream, engine: DockerClient
) -> None:
    image = upstream.push_index()
    stack = _with_images(new_stack, front, _references(image))
    stack.up()
    cache = engine.containers.get(stack.outputs()["caches"][REGISTRY]["name"])
    blobs = "/var/lib/registry/docker/registry/v2/blobs"
    code, printed = cache.exec_run(["busybox", "rm", "-r", blobs])
    assert code == 0, printed
    cache.restart(timeout=1)

    # The cache that was restarted has another address, which is an update as well.
    assert "update" in stack.refresh()
    assert stack.up().get("update") == 1

    with upstream.away():
        assert docker_cli.pull(_endpoint(stack), image) == image.digest
    assert set(stack.refresh()) == {"same"}


def test_a_storage_that_was_removed_is_found_by_refresh_and_filled_by_up(
    new_stack: NewStack, front: Front, upstream: Upstream, engine: DockerClient
) -> None:
    image = upstream.push_index()
    stack = _with_images(new_stack, front, _references(image))
    stack.up()
    described = stack.outputs()["caches"][REGISTRY]
    engine.containers.get(described["name"]).remove(force=True)
    engine.volumes.get(described["storage"]).remove()

    stack.refresh()
    stack.up()

    with upstream.away():
        assert docker_cli.pull(_endpoint(stack), image) == image.digest


def test_what_is_damaged_on_disk_is_found_by_refresh_and_healed_by_up(
    new_stack: NewStack, front: Front, upstream: Upstream, engine: DockerClient
) -> None:
    image = upstream.push_index()
    stack = _with_images(new_stack, front, _references(image))
    stack.up()
    cache = engine.containers.get(stack.outputs()["caches"][REGISTRY]["name"])
    large = "busybox find /var/lib/registry/docker/registry/v2/blobs -name data -size +1000k"
    damage = "busybox dd if=/dev/zero of=$file bs=1k count=1 conv=notrunc"
    code, printed = cache.exec_run(["sh", "-c", f"for file in $({large}); do {damage}; done"])
    assert code == 0, printed

    assert "update" in stack.refresh()
    assert stack.up().get("update") == 1

    with upstream.away():
        assert docker_cli.pull(_endpoint(stack), image) == image.digest


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"references": ["docker.io/a b"]}, "images.references[0]: found"),
        ({"references": ["nowhere.example/a:1"]}, "there is no cache for nowhere.example"),
        ({"file": "not-there.txt"}, "images.file: found 'not-there.txt'"),
        ({"platform": "amd64", "references": ["a"]}, "images.platform: found 'amd64'"),
        ({"platform": "linux/amd64"}, "images: found no images"),
        ({"talos": {"talosctl": "not-there"}}, "images.talos: there is no program not-there"),
    ],
)
def test_wrong_images_are_refused_before_anything_is_made(
    new_stack: NewStack, settings: dict[str, Any], message: str
) -> None:
    stack = new_stack({"upstreams": upstreams("http://upstream.example", *REGISTRIES)})
    stack.configure(settings, "images")
    with pytest.raises(CommandError) as failure:
        stack.preview()
    assert message in str(failure.value)
    assert "Traceback" not in str(failure.value)


# A stack that is offline


def test_an_offline_stack_serves_tags_at_once_and_takes_no_push(
    new_stack: NewStack, front: Front, upstream: Upstream
) -> None:
    image = upstream.push_index()
    stack = _with_images(new_stack, front, _references(image))
    stack.up()
    caches = stack.settings()
    for settings in caches["upstreams"].values():
        settings["remoteUrl"] = SWALLOWING
    stack.configure({**caches, "offline": True})

    stack.up()

    endpoint = _endpoint(stack)
    manifest = f"{endpoint}/v2/{image.repository}/manifests/{image.tag}"
    answers = [requests.head(manifest, timeout=60, headers={"Accept": "*/*"}) for _ in range(5)]
    assert all(answer.ok for answer in answers)
    assert min(answer.elapsed for answer in answers) < AT_ONCE
    assert docker_cli.pull(endpoint, image) == image.digest
    push = requests.post(f"{endpoint}/v2/{image.repository}/blobs/uploads/", timeout=5)
    assert push.status_code == requests.codes.method_not_allowed
