"""Cached images are served without the upstream, through crashes and restarts of the cache."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from docker import DockerClient
from docker.models.containers import Container

from tests.integration.support import belongings, docker_cli
from tests.integration.support.containerd import Containerd
from tests.integration.support.gate import Gate, guarding
from tests.integration.support.polling import eventually
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

REGISTRY = "docker.io"
HEALTHY_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache of a stack, and the gate of its upstream."""

    container: Container
    endpoint: str
    mirrors: dict[str, str]
    gate: Gate


@pytest.fixture(scope="module")
def cache(
    tmp_path_factory: pytest.TempPathFactory,
    engine: DockerClient,
    upstream: Upstream,
) -> Iterator[Cache]:
    """A cache that came up while its upstream was away."""
    folder = tmp_path_factory.mktemp("offline")
    with (
        guarding(upstream, "none") as gate,
        stack(
            folder,
            engine,
            {"upstreams": upstreams(gate.url, REGISTRY)},
        ) as made,
    ):
        with upstream.away():
            made.up()
        outputs = made.outputs()
        described = outputs["caches"][REGISTRY]
        container = engine.containers.get(described["name"])
        yield Cache(container, described["endpoint"], outputs["mirrors"], gate)


@pytest.mark.modern_engine
@pytest.mark.image_store
@pytest.mark.parametrize("push", [Upstream.push_index, Upstream.push_docker_image])
def test_docker_and_containerd_pull_what_either_has_pulled_without_the_upstream(
    cache: Cache,
    upstream: Upstream,
    containerd: Containerd,
    push: Callable[[Upstream], Pushed],
) -> None:
    by_docker, by_containerd, never = push(upstream), push(upstream), push(upstream)

    assert docker_cli.pull(cache.endpoint, by_docker) == by_docker.digest
    assert containerd.pull(REGISTRY, by_containerd, cache.mirrors) == by_containerd.digest

    fetched = cache.gate.blobs_served()
    assert len(fetched) == len(set(fetched)), "no blob is fetched twice"
    with upstream.away():
        for image in (by_docker, by_containerd):
            assert docker_cli.pull(cache.endpoint, image) == image.digest
            assert containerd.pull(REGISTRY, image, cache.mirrors) == image.digest
        with pytest.raises(CommandFailedError):
            docker_cli.pull(cache.endpoint, never)
    assert docker_cli.pull(cache.endpoint, by_docker) == by_docker.digest
    assert cache.gate.blobs_served() == fetched
    assert docker_cli.pull(cache.endpoint, never) == never.digest


@pytest.mark.modern_engine
@pytest.mark.image_store
def test_a_killed_or_stopped_cache_serves_again_without_the_upstream(
    cache: Cache, upstream: Upstream
) -> None:
    image, container = upstream.push_index(), cache.container
    docker_cli.pull(cache.endpoint, image)
    restarts = _restarts(container)
    with upstream.away():
        os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)
        eventually(
            lambda: _restarts(container) > restarts,
            within_s=HEALTHY_WITHIN_S,
            what="the engine restarts the cache",
        )
        _wait_until_healthy(container)
        assert docker_cli.pull(cache.endpoint, image) == image.digest

        container.stop(timeout=5)
        container.start()
        _wait_until_healthy(container)
        assert docker_cli.pull(cache.endpoint, image) == image.digest


def _restarts(container: Container) -> int:
    container.reload()
    return int(container.attrs["RestartCount"])


def _wait_until_healthy(container: Container) -> None:
    eventually(
        lambda: belongings.health(container) == "healthy",
        within_s=HEALTHY_WITHIN_S,
        what=f"{container.name} is healthy",
    )
