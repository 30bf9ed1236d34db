"""`up` removes images that nobody has requested for long; all others stay complete."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from talos_registry_cache.engine import volume
from talos_registry_cache.engine.cache_storage import InVolume
from tests.integration.support import host, http_pull, images
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import IMAGE, Pushed, Upstream

REGISTRY = "docker.io"
LONG_AGO_S = 31 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache whose stack has a retention of 720 hours."""

    stack: CacheStack
    engine: DockerClient

    @property
    def storage(self) -> InVolume:
        """Its storage."""
        return InVolume(self.engine, f"{self.stack.prefix}-{REGISTRY}", IMAGE)

    @property
    def tags(self) -> list[str]:
        """The images that it holds."""
        return [f"{repository}:{tag}" for repository, tag in self.storage.tags()]

    def configure(self, **changed: Any) -> None:
        """Change settings of the caches."""
        self.stack.configure({**self.stack.settings(), **changed})

    def warm(self, *pushed: Pushed) -> None:
        """Bring images into the cache."""
        cachectl = Cachectl(self.stack.name, self.stack.folder)
        assert cachectl("warm", *(f"{REGISTRY}/{image.name}" for image in pushed)).code == 0

    def age(self) -> None:
        """Make the cache look as if nothing had been pulled for a month: its links and its log."""
        # The log goes with the container.
        self.engine.containers.get(f"{self.stack.prefix}-{REGISTRY}").remove(force=True)
        self.stack.up()
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - LONG_AGO_S))
        with volume.mounted(self.engine, self.storage.volume, IMAGE) as mounted:
            command = ["busybox", "find", ".", "-name", "link", "-exec", "busybox", "touch"]
            mounted.run([*command, "-d", at, "{}", "+"])

    def pull(self, image: Pushed) -> str:
        """Pull an image with plain HTTP requests, check its digests, and return that of the tag."""
        return http_pull.pull(self.stack.endpoint(REGISTRY), image).digest

    def unwanted(self) -> Mapping[str, Mapping[str, int]]:
        """What a preview says that `up` would remove; nothing else would change."""
        steps = [step for step in self.stack.plan() if step["op"] != "same"]
        if not steps:
            return {}
        (step,) = steps
        assert (step["op"], step["urn"].rpartition("::")[2]) == ("update", "retention")
        found: Mapping[str, Mapping[str, int]] = step["newState"]["inputs"]["unwanted"]
        return found


NewCache = Callable[..., AbstractContextManager[Cache]]


@pytest.fixture
def new_cache(tmp_path: Path, engine: DockerClient, upstream: Upstream) -> NewCache:
    """A function that creates a cache whose stack is up."""

    @contextmanager
    def create(*declared: Pushed, **settings: Any) -> Iterator[Cache]:
        caches = {
            "upstreams": upstreams(upstream.url, REGISTRY),
            "retention": {"unusedFor": "720h"},
            **settings,
        }
        with stack(tmp_path, engine, caches) as made:
            references = [f"{REGISTRY}/{image.name}" for image in declared]
            if references:
                made.configure({"references": references}, "images")
            made.up()
            yield Cache(made, engine)

    return create


def test_an_unused_image_is_removed_and_one_that_shares_its_layers_stays_complete(
    new_cache: NewCache, upstream: Upstream
) -> None:
    index = images.oci_index(host.architecture())
    used, unused = upstream.push(index), upstream.push(index)
    declared, alone = upstream.push_index(), upstream.push_index()
    with new_cache(declared) as cache:
        cache.warm(used, unused, alone)
        cache.age()
        cache.pull(used)
        assert cache.storage.read(trusting=True) == cache.storage.read()

        planned = cache.unwanted()
        shown = cache.stack.pulumi("preview", "--color=never")
        changed = cache.stack.pulumi("up", "--yes", "--skip-preview", "--color=never")
        again = cache.unwanted()

        assert planned[REGISTRY]["images"] == 2
        assert planned[REGISTRY]["bytes"] > sum(images.LAYER_SIZES)
        assert "to remove: 2 images, " in shown
        assert "removed: 2 images, " in changed
        assert again == {}
        assert set(cache.stack.up()) == {"same"}
        assert cache.tags == sorted([used.name, declared.name])
        with upstream.away():
            assert cache.pull(used) == used.digest
            assert cache.pull(declared) == declared.digest


def test_an_image_that_is_used_while_the_upstream_is_away_stays(
    new_cache: NewCache, upstream: Upstream
) -> None:
    used, unused = upstream.push_index(), upstream.push_index()
    with new_cache() as cache:
        cache.warm(used, unused)
        cache.age()

        with upstream.away():
            cache.pull(used)
            cache.stack.up()

            assert cache.tags == [used.name]
            assert cache.pull(used) == used.digest


def test_the_least_recently_used_images_are_removed_down_to_a_size(
    new_cache: NewCache, upstream: Upstream
) -> None:
    old, new = upstream.push_index(), upstream.push_index()
    with new_cache(retention={"maxSize": "1g"}) as cache:
        cache.warm(old, new)
        cache.age()
        cache.pull(new)
        assert cache.unwanted() == {}
        size = cache.storage.read(trusting=True).size

        cache.configure(retention={"maxSize": f"{size // 1000}k"})
        cache.stack.up()

        assert cache.tags == [new.name]
