"""Images that are cached before any node pulls them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
import requests
from docker import DockerClient
from docker.models.containers import Container
from pulumi.automation import CommandError

from tests.integration.support import belongings, docker_cli, host, images, stored
from tests.integration.support.gate import Gate, guarding
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

REGISTRY, OTHER = REGISTRIES = ("docker.io", "registry.example")
BLOBS = f"{stored.STORED}/blobs"
# In a network for documentation: connections get no answer.
UNREACHABLE = "http://192.0.2.1"
AT_ONCE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class ImageSet:
    """A stack with an image set, and the gate of its upstream, which counts requests."""

    stack: CacheStack
    gate: Gate
    engine: DockerClient

    def configure(self, *pushed: Pushed, registry: str = REGISTRY) -> list[str]:
        """Set the images, and return their references."""
        references = [f"{registry}/{image.name}" for image in pushed]
        self.stack.configure({"references": references}, "images")
        return references

    @property
    def registry(self) -> Container:
        """The container of the registry."""
        return belongings.registries(self.engine, self.stack.name)[REGISTRY]

    def pull(self, image: Pushed, registry: str = REGISTRY) -> str:
        """Pull an image, and return its digest."""
        return docker_cli.pull(self.stack.endpoint(registry), image)


@pytest.fixture(scope="module")
def image_set(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[ImageSet]:
    folder = tmp_path_factory.mktemp("images")
    with (
        guarding(upstream, "none") as gate,
        stack(folder, engine, {"upstreams": upstreams(gate.url, *REGISTRIES)}) as made,
    ):
        yield ImageSet(made, gate, engine)


@pytest.mark.modern_engine
@pytest.mark.image_store
def test_images_are_served_without_the_upstream_and_each_blob_is_fetched_once(
    image_set: ImageSet, upstream: Upstream
) -> None:
    index, second = images.oci_index(host.architecture()), upstream.push_docker_image()
    shared = [upstream.push(index) for _ in range(3)]
    references = [*image_set.configure(*shared), f"{OTHER}/{second.name}"]
    image_set.stack.configure({"references": references}, "images")

    image_set.stack.up()

    digests = [image.digest for image in (*shared, second)]
    assert image_set.stack.outputs()["images"] == dict(zip(references, digests, strict=True))
    served = Counter(image_set.gate.blobs_served())
    assert {blob.digest for blob in images.blobs_of(index)} < set(served)
    assert set(served.values()) == {1}
    with upstream.away():
        for image in shared:
            assert image_set.pull(image) == image.digest
        assert image_set.pull(second, OTHER) == second.digest
    assert set(image_set.stack.up()) == {"same"}


@pytest.mark.modern_engine
def test_images_are_cached_for_all_platforms_which_a_refresh_proves(
    image_set: ImageSet, upstream: Upstream
) -> None:
    index = images.oci_index(host.architecture(), host.other_architecture())
    [reference] = image_set.configure(upstream.push(index))
    image_set.stack.up()
    before = image_set.gate.blobs_served()

    image_set.stack.configure({"references": [reference], "platforms": "all"}, "images")
    assert image_set.stack.up().get("update") == 1

    added = image_set.gate.blobs_served()[len(before) :]
    other = index.images[host.other_architecture()]
    assert sorted(added) == sorted(blob.digest for blob in other.blobs)
    with upstream.away():
        assert set(image_set.stack.refresh()) == {"same"}


def test_only_an_added_image_is_fetched(image_set: ImageSet, upstream: Upstream) -> None:
    first, second = upstream.push_index(), upstream.push_index()
    image_set.configure(first)
    image_set.stack.up()
    before = image_set.gate.blobs_served()

    image_set.configure(first, second)
    assert image_set.stack.preview().get("update") == 1
    image_set.stack.up()

    added = image_set.gate.blobs_served()[len(before) :]
    assert added
    assert set(before).isdisjoint(added)
    with upstream.away():
        assert image_set.pull(second) == second.digest


def _lose(registry: Container) -> None:
    code, printed = registry.exec_run(["busybox", "rm", "-r", BLOBS])
    assert code == 0, printed
    registry.restart(timeout=1)


def _damage(registry: Container) -> None:
    large = f"busybox find {BLOBS} -name data -size +1000k"
    damage = "busybox dd if=/dev/zero of=$file bs=1k count=1 conv=notrunc"
    code, printed = registry.exec_run(["sh", "-c", f"for file in $({large}); do {damage}; done"])
    assert code == 0, printed


@pytest.mark.modern_engine
@pytest.mark.parametrize("harm", [_lose, _damage])
def test_refresh_finds_lost_and_damaged_content_and_up_fetches_it_again(
    image_set: ImageSet, upstream: Upstream, harm: Callable[[Container], None]
) -> None:
    image = upstream.push_index()
    image_set.configure(image)
    image_set.stack.up()
    harm(image_set.registry)

    assert "update" in image_set.stack.refresh()
    assert image_set.stack.up().get("update") == 1

    with upstream.away():
        assert image_set.pull(image) == image.digest
    assert set(image_set.stack.refresh()) == {"same"}


def test_refresh_finds_a_removed_volume_and_up_fills_a_new_one(
    image_set: ImageSet, upstream: Upstream
) -> None:
    image = upstream.push_index()
    image_set.configure(image)
    image_set.stack.up()
    storage = image_set.stack.outputs()["caches"][REGISTRY]["storage"]
    image_set.registry.remove(force=True)
    image_set.engine.containers.get(f"{image_set.stack.prefix}-{REGISTRY}").remove(force=True)
    image_set.engine.volumes.get(storage).remove()

    image_set.stack.refresh()
    image_set.stack.up()

    with upstream.away():
        assert image_set.pull(image) == image.digest


def test_a_registry_without_a_cache_is_refused_before_anything_changes(
    image_set: ImageSet, upstream: Upstream
) -> None:
    image_set.configure(upstream.push_index(), registry="nowhere.example")
    with pytest.raises(CommandError, match=r"there is no cache for nowhere\.example") as failure:
        image_set.stack.preview()
    assert "Traceback" not in str(failure.value)


def test_an_offline_stack_serves_tags_at_once_and_accepts_no_push(
    image_set: ImageSet, upstream: Upstream
) -> None:
    image = upstream.push_index()
    image_set.configure(image)
    image_set.stack.up()
    caches = image_set.stack.settings()
    for settings in caches["upstreams"].values():
        settings["remoteUrl"] = UNREACHABLE
    image_set.stack.configure({**caches, "offline": True})

    image_set.stack.up()

    repository = f"{image_set.stack.endpoint(REGISTRY)}/v2/{image.repository}"
    manifest = f"{repository}/manifests/{image.tag}"
    answers = [requests.head(manifest, timeout=60, headers={"Accept": "*/*"}) for _ in range(5)]
    assert all(answer.ok for answer in answers)
    assert min(answer.elapsed for answer in answers) < AT_ONCE
    assert image_set.pull(image) == image.digest
    push = requests.post(f"{repository}/blobs/uploads/", timeout=5)
    assert push.status_code == requests.codes.method_not_allowed
