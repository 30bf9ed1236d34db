"""What is cached is served while the upstream is away, whatever happens to the cache."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from docker import DockerClient
from docker.models.containers import Container

from tests.integration.support import belongings, docker_cli
from tests.integration.support.containerd import Containerd
from tests.integration.support.front import guarding
from tests.integration.support.polling import eventually
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

REGISTRY = "docker.io"
HEALTHY_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Cache:
    """The one cache of a stack, as its clients see it."""

    stack: CacheStack
    container: Container
    endpoint: str
    mirror: str


@pytest.fixture(scope="module")
def cache(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Cache]:
    settings = {"upstreams": upstreams(upstream.url, REGISTRY)}
    with stack(tmp_path_factory.mktemp("offline"), engine, settings) as made:
        made.up()
        outputs = made.outputs()
        yield Cache(
            stack=made,
            container=engine.containers.get(outputs["caches"][REGISTRY]["name"]),
            endpoint=outputs["caches"][REGISTRY]["endpoint"],
            mirror=outputs["mirrors"][REGISTRY],
        )


@pytest.fixture(scope="module")
def cached(cache: Cache, upstream: Upstream) -> Pushed:
    """An image that was pulled once."""
    image = upstream.push_index()
    assert docker_cli.pull(cache.endpoint, image) == image.digest
    return image


def test_docker_pulls_an_index_cold_and_then_warm(cache: Cache, upstream: Upstream) -> None:
    image = upstream.push_index()
    assert docker_cli.pull(cache.endpoint, image) == image.digest
    with upstream.away():
        assert docker_cli.pull(cache.endpoint, image) == image.digest


def test_docker_pulls_a_schema_2_manifest_cold_and_then_warm(
    cache: Cache, upstream: Upstream
) -> None:
    image = upstream.push_docker_image()
    assert docker_cli.pull(cache.endpoint, image) == image.digest
    with upstream.away():
        assert docker_cli.pull(cache.endpoint, image) == image.digest


def test_containerd_pulls_an_index_cold_and_then_warm(
    cache: Cache, upstream: Upstream, containerd: Containerd
) -> None:
    image = upstream.push_index()
    mirrors = {REGISTRY: cache.mirror}
    assert containerd.pull(REGISTRY, image, mirrors) == image.digest
    with upstream.away():
        assert containerd.pull(REGISTRY, image, mirrors) == image.digest


def test_containerd_pulls_a_schema_2_manifest_cold_and_then_warm(
    cache: Cache, upstream: Upstream, containerd: Containerd
) -> None:
    image = upstream.push_docker_image()
    mirrors = {REGISTRY: cache.mirror}
    assert containerd.pull(REGISTRY, image, mirrors) == image.digest
    with upstream.away():
        assert containerd.pull(REGISTRY, image, mirrors) == image.digest


def test_what_one_client_has_pulled_is_warm_for_the_other(
    cache: Cache, cached: Pushed, upstream: Upstream, containerd: Containerd
) -> None:
    with upstream.away():
        pulled = containerd.pull(REGISTRY, cached, {REGISTRY: cache.mirror})
    assert pulled == cached.digest


def test_what_was_never_pulled_is_not_served_offline(cache: Cache, upstream: Upstream) -> None:
    image = upstream.push_index()
    with upstream.away(), pytest.raises(CommandFailedError):
        docker_cli.pull(cache.endpoint, image)
    assert docker_cli.pull(cache.endpoint, image) == image.digest


def test_killed_cache_is_restarted_by_the_engine_and_serves(
    cache: Cache, cached: Pushed, upstream: Upstream
) -> None:
    cache.container.reload()
    restarts = cache.container.attrs["RestartCount"]
    with upstream.away():
        os.kill(cache.container.attrs["State"]["Pid"], signal.SIGKILL)
        eventually(
            lambda: _restarts(cache.container) > restarts,
            within_s=HEALTHY_WITHIN_S,
            what="the engine restarts the cache",
        )
        _healthy(cache.container)
        assert docker_cli.pull(cache.endpoint, cached) == cached.digest


def test_stopped_cache_starts_again_and_serves(
    cache: Cache, cached: Pushed, upstream: Upstream
) -> None:
    with upstream.away():
        cache.container.stop(timeout=5)
        cache.container.start()
        _healthy(cache.container)
        assert docker_cli.pull(cache.endpoint, cached) == cached.digest


def test_cache_is_made_while_its_upstream_is_away_and_fetches_once_it_is_back(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> None:
    image = upstream.push_index()
    settings = {"upstreams": upstreams(upstream.url, REGISTRY)}
    with stack(tmp_path_factory.mktemp("away"), engine, settings) as made:
        with upstream.away():
            made.up()
        endpoint = made.outputs()["caches"][REGISTRY]["endpoint"]
        assert docker_cli.pull(endpoint, image) == image.digest


def test_no_blob_is_fetched_twice(
    tmp_path_factory: pytest.TempPathFactory,
    engine: DockerClient,
    upstream: Upstream,
    containerd: Containerd,
) -> None:
    image = upstream.push_index()
    with (
        guarding(upstream, "none") as front,
        stack(
            tmp_path_factory.mktemp("once"), engine, {"upstreams": upstreams(front.url, REGISTRY)}
        ) as made,
    ):
        made.up()
        outputs = made.outputs()
        docker_cli.pull(outputs["caches"][REGISTRY]["endpoint"], image)
        fetched = front.blobs_served()
        docker_cli.pull(outputs["caches"][REGISTRY]["endpoint"], image)
        containerd.pull(REGISTRY, image, outputs["mirrors"])
        assert fetched
        assert front.blobs_served() == fetched


def _restarts(container: Container) -> int:
    container.reload()
    return int(container.attrs["RestartCount"])


def _healthy(container: Container) -> None:
    eventually(
        lambda: belongings.health(container) == "healthy",
        within_s=HEALTHY_WITHIN_S,
        what=f"{container.name} is healthy",
    )
